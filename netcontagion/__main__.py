"""``python -m netcontagion``."""

from __future__ import annotations

from netcontagion.cli import main

raise SystemExit(main())
