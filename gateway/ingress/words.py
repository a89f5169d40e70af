"""What the instructions of all protocols share: the test picture, the encoder's settings, and the heading and foot of a text."""

from datetime import UTC, datetime

TEST_PICTURE = (
    "ffmpeg -re -f lavfi -i testsrc2=size=1280x720:rate=30 -re -f lavfi -i sine=frequency=440:sample_rate=48000 "
    "-c:v libx264 -preset veryfast -tune zerolatency -bf 0 -g 60 -pix_fmt yuv420p -b:v 2500k"
)
AAC = "-c:a aac -b:a 128k"

B_FRAMES = """\
       x264 Options       bframes=0     (hardware encoders: Max B-frames 0)
     WebRTC has no B-frames: with them your picture is decoded and encoded once more, which costs quality, delay
     and processor time. Without them it reaches the viewers untouched.
"""


def obs_steps(version: str, service: str, keyframes: str, more: str = "") -> str:
    """The steps in OBS; `service` are the lines of its Stream page, `keyframes` the interval with its reason."""
    return f"""
In OBS Studio{version}
{service}
  3. Settings > Output > Output Mode: Advanced > Streaming, encoder x264 (or a hardware one):
       Rate Control       CBR, 2500 to 6000 Kbps
       Keyframe Interval  {keyframes}
       Tune               zerolatency   (the encoder holds no frames back)
{more}  4. Settings > Audio > Sample Rate: 48 kHz
  5. Start Streaming
"""


def text(call: str, expires_at: int, paste: list[str], watch: str) -> str:
    """The heading, the lines to paste, and the watch page. `expires_at` in Unix seconds."""
    until = datetime.fromtimestamp(expires_at, UTC)
    heading = f"Stream into {call}, until {until:%Y-%m-%d %H:%M} UTC"
    return "\n".join([heading, "", *paste, "", f"  Watch:       {watch}", ""])
