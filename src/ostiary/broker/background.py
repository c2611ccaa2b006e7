"""What a service does beside answering: looking after endorsements, and writing down what starts brought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ostiary.broker.cas import Cas


@asynccontextmanager
async def background(cas: Cas) -> AsyncIterator[None]:
    """Run it for as long as the block lasts. Nothing in the block ever waits for it."""
    tasks = [asyncio.create_task(work) for work in (cas.endorsements.run(), cas.last_evidence.run())]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
