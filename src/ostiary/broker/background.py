"""What a service does beside answering: looking after endorsements and proposals, and writing what starts brought."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ostiary.broker.cas import Cas
from ostiary.broker.sweep import sweep_for_ever


@asynccontextmanager
async def background(cas: Cas) -> AsyncIterator[None]:
    """Run it for as long as the block lasts. Nothing in the block ever waits for it."""
    works = (cas.endorsements.run(), cas.last_evidence.run(), cas.webhooks.run(), sweep_for_ever(cas))
    tasks = [asyncio.create_task(work) for work in works]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
