"""The shapes of the API, which are the only definition of them: requests are checked by these models, answers are made of them, and the
OpenAPI document is generated from them.

Kept true: every text, list and number of a request has a bound; a field that nobody knows is refused with the nearest one that is known;
answers hold no secret but the stream key that was just asked for.
"""
