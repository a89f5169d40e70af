"""A programme whose picture carries the time at which it was drawn, so that whoever sees it knows how long it was on its way."""

from tests.support.encoders import BITS, STRIP

TICKS = 50  # a second


def clock_programme(width: int = 320, height: int = 180, rate: int = 30, *, gop: int = 60) -> list[str]:
    """ffmpeg arguments for a picture whose top 16 rows hold the Unix time in 50ths of a second as 16 bits, the lowest on the left, and a
    tone; encoded as live encoders do it, with a key frame every `gop` frames."""
    ticks = f"mod(floor(time(0)*{TICKS})\\,65536)"
    lum = f"if(mod(floor({ticks}/pow(2\\,floor(X*{BITS}/W)))\\,2)\\,235\\,16)"
    return [
        *("-re", "-f", "lavfi", "-i", f"testsrc2=size={width}x{height - STRIP}:rate={rate}"),
        *("-re", "-f", "lavfi", "-i", f"color=black:size={width}x{STRIP}:rate={rate},geq=lum={lum}:cb=128:cr=128"),
        *("-re", "-f", "lavfi", "-i", "sine=frequency=1000:sample_rate=48000"),
        *("-filter_complex", "[1:v][0:v]vstack,format=yuv420p[v]", "-map", "[v]", "-map", "2:a"),
        *("-c:v", "libx264", "-preset", "ultrafast", "-tune", "zerolatency", "-bf", "0", "-g", str(gop)),
    ]
