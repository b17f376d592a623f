"""Played agents collect garbage: what other tests have loaded into this process is none of theirs."""

from frozen_heap import frozen_heap

__all__ = ["frozen_heap"]
