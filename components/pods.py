"""Work that several pods do together."""


def shares(pods: int, pieces: int) -> list[tuple[int, ...]]:
    """Numbers of the pieces, dealt to pods: neighbours together, at most one more for one than for another."""
    pods = min(pods, pieces)
    return [tuple(range(pieces * pod // pods, pieces * (pod + 1) // pods)) for pod in range(pods)]
