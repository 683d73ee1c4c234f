"""A webhook that is called when a run's verdict is another one than the run before had. Off unless configured."""

from __future__ import annotations

import logging
from pathlib import Path
from socket import gethostname

from pipeline.core.decisions import Verdicts
from pipeline.core.files import read_json, write_json
from pipeline.core.layout import NOTIFIED

logger = logging.getLogger(__name__)
_TIMEOUT_S = 20.0


def tell_change(webhook: str, name: str, place: Path, verdicts: Verdicts) -> bool:
    """POST both decisions to `webhook` as JSON where they are not those that were told last of this run directory.

    `{"run", "host", "utility": {"before", "now"}, "release": {"before", "now"}}`; `before` is null the first time. No
    figure, no path and no id. A call that fails is a warning and is made again by the next run.

    Returns:
        Whether the change was told.
    """
    now = {"utility": str(verdicts["utility"]["decision"]), "release": str(verdicts["release"]["decision"])}
    told = read_json(place / NOTIFIED) if (place / NOTIFIED).is_file() else {}
    if not webhook or told == now:
        return False
    changes = {part: {"before": told.get(part), "now": decision} for part, decision in now.items()}
    import httpx  # here, because most runs have no webhook

    try:
        answer = httpx.post(webhook, json={"run": name, "host": gethostname(), **changes}, timeout=_TIMEOUT_S)
        answer.raise_for_status()
    except httpx.HTTPStatusError as error:
        logger.warning("The webhook answered %d; the next run tells the change again.", error.response.status_code)
        return False
    except (httpx.HTTPError, httpx.InvalidURL) as error:  # its text may hold the address, which may hold a token
        logger.warning("The webhook was not reached (%s); the next run tells the change again.", type(error).__name__)
        return False
    write_json(place / NOTIFIED, now)
    return True
