"""The software platform: quotes in Intel's formats for any Linux machine, under a root of its own. Protects nothing."""

from ostiary.platform.daemon import serve_platform
from ostiary.platform.directory import Platform, init_platform
from ostiary.platform.measure import Measurement, measure_program

__all__ = ["Measurement", "Platform", "init_platform", "measure_program", "serve_platform"]
