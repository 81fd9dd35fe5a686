"""Hands nginx the pool as it is to be: not too often, and again where that failed."""

from __future__ import annotations

import contextlib
import logging
from typing import TYPE_CHECKING

from modhaven.pool import files, nginx
from modhaven.pool.nginx import NginxError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from modhaven.pool.metrics import Metrics
    from modhaven.pool.nginx import Nginx
    from modhaven.pool.plan import Plan
    from modhaven.pool.settings import PoolConfig

log = logging.getLogger(__name__)
_RETRY_SECONDS = 5.0
_MOST_NAMES = 10


class Publisher:
    """``published``: nginx has the plan that was offered last; ``error``: why not, or a remark."""

    def __init__(
        self, template: Path, server: Nginx, metrics: Metrics, clock: Callable[[], float]
    ) -> None:
        """Take what is in place for what nginx has. NginxError."""
        self._template = template
        self._nginx = server
        self._metrics = metrics
        self._clock = clock
        self._rendered_from: object = None
        self._wanted = ""
        self._not_before = -float("inf")
        self._stamp = files.stamp(server.file)
        self.live = server.live()
        self.published = False
        self.error = ""
        self.reloads = 0

    def offer(self, made: Plan, config: PoolConfig) -> None:
        """Publish the plan where nginx has another one and the time bounds allow it."""
        self.published = False
        try:
            self._render(made, config)
            self._notice_others()
            same = self._wanted == self.live
            if not same or self._nginx.reload_is_due:
                if self._clock() < self._not_before:
                    return
                runs = self._nginx.reload() if same else self._nginx.publish(self._wanted)
                self.live, self._stamp = self._wanted, files.stamp(self._nginx.file)
                if runs:
                    self.reloads += 1
                    self._metrics.reloads.inc()
                    self._not_before = self._clock() + config.reload_seconds
                if runs or not same:
                    log.info("nginx asks %s", _in_words(made))
                self.error = "" if runs else "nginx does not run: it takes the pool when it starts"
            else:
                self.error = ""
            self.published = True
        except (NginxError, OSError) as error:
            if str(error) != self.error:
                log.error("nginx keeps the pool it has: %s", error)  # noqa: TRY400 - a sentence
            self.error = str(error)
            self._not_before = self._clock() + _RETRY_SECONDS
            self._metrics.failures.inc()
            with contextlib.suppress(NginxError, OSError):
                # What was in place before may have been put back.
                self._take_live()

    def _render(self, made: Plan, config: PoolConfig) -> None:
        key = (made, config.limits, files.stamp(self._template))
        if key != self._rendered_from:
            self._wanted = nginx.render(self._template, made, config.limits)
            self._rendered_from = key

    def _notice_others(self) -> None:
        if files.stamp(self._nginx.file) != self._stamp:
            self._take_live()
            log.warning("%s was changed by somebody else", self._nginx.file)

    def _take_live(self) -> None:
        # The stamp first: what is written after it is read again.
        self._stamp = files.stamp(self._nginx.file)
        self.live = self._nginx.live()


def _in_words(made: Plan) -> str:
    out = [f"{place.server.name} ({place.reason})" for place in made.places if not place.asked]
    text = f"{len(made.places) - len(out)} of {len(made.places)} backends"
    if out:
        text += f", not {', '.join(out[:_MOST_NAMES])}"
    if len(out) > _MOST_NAMES:
        text += f" and {len(out) - _MOST_NAMES} more"
    return text
