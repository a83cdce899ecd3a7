"""Fitting sides in two directions at a right angle to the steps of pixel outlines."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from geocd.vectorize.outline import Floats, Ints

Flags = npt.NDArray[np.bool_]

_SHORTEST = 2.0
"""Sides shorter than this, in pixels, cannot be told from the steps of the pixels."""
_BUMP_DEPTH = 4.0
"""Steps in a wall that are less deep than this, in pixels, and ..."""
_BUMP_AREA = 8.0
"""... hold less than this, in pixels, are bumps of the mask and none of the wall."""
_END = 1.5
"""How much of each end of a side, in pixels, is left out of the fit: corners are worn."""
_OUTLIER = 1.5
"""Points farther than this from a side, in pixels, have no say in where it lies."""
_MANY = 12
"""Rings of so many runs may lose several at once: those with nothing shorter within two."""


@dataclass(slots=True)
class Runs:
    """Stretches of outlines along (x of the frame) and across (y) the dominant direction.

    Each object has a frame of its own, turned by its direction. In each ring runs along and
    runs across take turns.
    """

    points: Floats
    """Middles of pixel sides in the frames of their objects, (m, 2)."""
    run: Ints
    """Run of each point, ascending, (m,)."""
    across: Flags
    """Whether each of the r runs goes across, (r,)."""
    ring: Ints
    """Ring of each run, ascending, (r,)."""
    ring_owner: Ints
    """Object of every ring, those without runs included."""
    direction: Floats
    """Angle of the frame of each object, in radians from x to y, (n,)."""

    @classmethod
    def of(
        cls, points: Floats, ring: Ints, ring_owner: Ints, corner: Ints, direction: Floats
    ) -> Runs:
        """Runs of the sides between the corners of a thinned outline.

        Args:
            points: middles of pixel sides, (m, 2).
            ring: ring of each point, ascending, (m,).
            ring_owner: object of each ring.
            corner: indices of the points at which the thinned outline turns, ring after ring.
            direction: dominant direction of each object, in radians.
        """
        points = turned(points, -direction, ring_owner[ring])
        of_corner = ring[corner]
        first = np.searchsorted(of_corner, np.arange(len(ring_owner)))
        last = np.searchsorted(of_corner, np.arange(len(ring_owner)), side="right") - 1
        after, before = np.arange(1, len(corner) + 1), np.arange(-1, len(corner) - 1)
        after[last], before[first] = first, last
        way = points[corner[after]] - points[corner]
        across = np.abs(way[:, 1]) > np.abs(way[:, 0])
        begins = np.flatnonzero(across != across[before])
        # Every ring is opened where a run begins; rings without one have no right angles.
        usable, opening = np.unique(of_corner[begins], return_index=True)
        start = np.zeros(len(ring_owner), np.intp)
        start[usable] = corner[begins[opening]]
        kept = np.isin(np.arange(len(ring_owner)), usable)
        index = np.flatnonzero(kept[ring])
        begin = np.searchsorted(ring, np.arange(len(ring_owner)))
        size = np.searchsorted(ring, np.arange(len(ring_owner)), side="right") - begin
        of = ring[index]
        rolled = begin[of] + (index - start[of]) % size[of]
        order = np.empty(len(points), np.intp)
        order[rolled] = index
        order = order[index]
        opens = np.zeros(len(points), bool)
        opens[corner[begins]] = True
        run = np.cumsum(opens[order]) - 1
        kind = np.zeros(len(points), bool)
        kind[corner[begins]] = across[begins]
        return cls(
            points[order], run, kind[order][opens[order]], of[opens[order]], ring_owner, direction
        )

    @property
    def owner(self) -> Ints:
        """Object of each run."""
        return self.ring_owner[self.ring]


def turned(points: Floats, angle: Floats, of: Ints) -> Floats:
    """Points turned about the origin, from x to y.

    Args:
        points: shape (m, 2).
        angle: in radians, of each object.
        of: object of each point, (m,).
    """
    cosine, sine = np.cos(angle)[of], np.sin(angle)[of]
    x, y = points[:, 0], points[:, 1]
    result = np.empty_like(points)
    np.subtract(cosine * x, sine * y, out=result[:, 0])
    np.add(sine * x, cosine * y, out=result[:, 1])
    return result


def without_short_runs(runs: Runs) -> Runs:
    """Runs of which each is long enough to be a side; the shortest go first.

    What lies on both sides of a run that goes becomes one run. Rings keep at least four runs
    if they had them.
    """
    links = _Links.of(runs)
    ring = runs.ring
    alive = np.arange(len(ring))
    while len(alive):
        length, short = links.lengths(alive)
        count = np.bincount(ring[alive], minlength=len(runs.ring_owner))
        short &= count[ring[alive]] > 4
        alive, length, short = _in_rings_with_any(short, ring, alive, length)
        if not len(alive):
            break
        going = _chosen(alive, length, short, ring, count, links)
        links.remove(going)
        alive = alive[links.into[alive] == alive]
    kept = np.flatnonzero(links.into == np.arange(len(ring)))
    number = np.empty(len(ring), np.intp)
    number[kept] = np.arange(len(kept))
    # A run at the end of a ring may have taken in the one at its beginning, so runs of
    # points are no longer ascending; nothing after this needs them to be.
    run = number[links.ends()[runs.run]]
    return Runs(runs.points, run, runs.across[kept], ring[kept], runs.ring_owner, runs.direction)


def _in_rings_with_any(
    short: Flags, ring: Ints, alive: Ints, length: Floats
) -> tuple[Ints, Floats, Flags]:
    """The runs of rings in which something is left to do."""
    busy = np.zeros(int(ring[-1]) + 1, bool)
    busy[ring[alive[short]]] = True
    rest = busy[ring[alive]]
    return alive[rest], length[rest], short[rest]


def _chosen(
    alive: Ints, length: Floats, short: Flags, ring: Ints, count: Ints, links: _Links
) -> Ints:
    """Runs to remove together: one a ring, or several of a long ring that do not meet."""
    rank = np.full(len(ring), len(alive), np.intp)
    order = np.lexsort((length, ~short))
    rank[alive[order]] = np.arange(len(alive))
    candidates = alive[short]
    _, first = np.unique(ring[candidates[np.argsort(rank[candidates])]], return_index=True)
    best = np.zeros(len(ring), bool)
    best[candidates[np.argsort(rank[candidates])][first]] = True
    least = rank[candidates]
    ahead, behind = candidates, candidates
    for _ in range(2):
        ahead, behind = links.after[ahead], links.before[behind]
        least = np.minimum(least, np.minimum(rank[ahead], rank[behind]))
    several = (least == rank[candidates]) & (count[ring[candidates]] >= _MANY)
    chosen: Ints = candidates[several | best[candidates]]
    return chosen


@dataclass(slots=True)
class _Links:
    """Runs as rings of links that can be taken out, with the sums that place them."""

    after: Ints
    before: Ints
    into: Ints
    """The run that each has become part of; itself if it is still there."""
    weight: Floats
    """Points that have a say in where a run lies."""
    total: Floats
    """Sum of their coordinate at a right angle to the run."""
    progress: Floats
    """How far the outline goes along each run, in its direction; negative: backwards."""

    @classmethod
    def of(cls, runs: Runs) -> _Links:
        count = len(runs.ring)
        after, before = _cyclic(runs.ring)
        begin = np.searchsorted(runs.run, np.arange(count))
        size = np.bincount(runs.run, minlength=count)
        # The points beside a corner are worn off; short runs have no others.
        place = np.arange(len(runs.run)) - begin[runs.run]
        inner = (place >= 2) & (place < size[runs.run] - 2) | (size[runs.run] < 7)
        along, offset = _split(runs)
        weight = np.bincount(runs.run, weights=inner, minlength=count).astype(float)
        total = np.bincount(runs.run, weights=inner * offset, minlength=count).astype(float)
        progress = along[begin + size - 1] - along[begin]
        return cls(after, before, np.arange(count), weight, total, progress)

    def lengths(self, runs: Ints) -> tuple[Floats, Flags]:
        """Length of each run from corner to corner, and whether that is too short."""
        offset = np.full(len(self.into), np.nan)
        offset[runs] = self.total[runs] / self.weight[runs]
        span = offset[self.after[runs]] - offset[self.before[runs]]
        length = np.sign(self.progress[runs]) * span
        whole = np.zeros(len(self.into))
        whole[runs] = length
        beside = np.minimum(whole[self.after[runs]], whole[self.before[runs]])
        bump = (length < _BUMP_DEPTH) & (length * beside < _BUMP_AREA)
        return length, (length < _SHORTEST) | bump

    def remove(self, going: Ints) -> None:
        """Take runs out; of the two beside each, the later joins the earlier."""
        before, after = self.before[going], self.after[going]
        for sums in (self.weight, self.total, self.progress):
            sums[before] += sums[after]
        self.into[going], self.into[after] = before, before
        follower = self.after[after]
        self.after[before], self.before[follower] = follower, before

    def ends(self) -> Ints:
        """The run that is still there for every run that ever was."""
        ends = self.into
        while not np.array_equal(further := ends[ends], ends):
            ends = further
        return ends


def _split(runs: Runs) -> tuple[Floats, Floats]:
    """Coordinates of the points along their runs and at a right angle to them."""
    across = runs.across[runs.run]
    x, y = runs.points.T
    return np.where(across, y, x), np.where(across, x, y)


@dataclass(frozen=True, slots=True)
class Fit:
    """Outlines with right angles."""

    corners: Floats
    """(c, 2), ring after ring, in pixels."""
    ring: Ints
    """Ring of each corner, (c,)."""
    fitted: Flags
    """Whether each ring has a fit of at least four sides."""
    mean: Floats
    """Mean distance of each object's points from its sides, (n,)."""
    typical: Floats
    """Root mean square distance of each object's points from its sides, (n,)."""
    largest: Floats
    """Largest distance of a point of each object from its sides, (n,)."""


def fit_sides(runs: Runs) -> Fit:
    """Directions and sides that lie closest to the points, by least squares.

    The direction follows in closed form: it is the main axis of the scatter of the points
    about their sides, with the sides across turned by a right angle.
    """
    count = len(runs.ring)
    after, before = _cyclic(runs.ring)
    _, offset = _split(runs)
    places, _ = _means(offset, runs.run, np.zeros(count))
    for _ in range(3):
        inner = _inner(runs, places, after, before)
        runs = _turned_to_fit(runs, inner)
        _, offset = _split(runs)
        fitted, bare = _means(offset[inner], runs.run[inner], places)
        # Where nothing is left to fit, the mean of all points stands in.
        rest = np.flatnonzero(bare[runs.run])
        rough, _ = _means(offset[rest], runs.run[rest], places)
        places = np.where(bare, rough, fitted)
    distance = _distance(runs, places, after, before)
    corners = np.where(
        runs.across[:, None],
        np.column_stack([places, places[after]]),
        np.column_stack([places[after], places]),
    )
    size = np.bincount(runs.ring, minlength=len(runs.ring_owner))
    objects = len(runs.direction)
    owner = runs.owner[runs.run]
    points = np.maximum(np.bincount(owner, minlength=objects), 1)
    mean = np.bincount(owner, weights=distance, minlength=objects) / points
    typical = np.sqrt(np.bincount(owner, weights=distance**2, minlength=objects) / points)
    largest = np.zeros(objects)
    np.maximum.at(largest, owner, distance)
    corners = turned(corners, runs.direction, runs.owner)
    return Fit(corners, runs.ring, size >= 4, mean, typical, largest)


def _cyclic(ring: Ints) -> tuple[Ints, Ints]:
    count = len(ring)
    first = np.flatnonzero(np.r_[True, ring[1:] != ring[:-1]][:count])
    last = np.r_[first[1:], count] - 1
    after, before = np.arange(1, count + 1), np.arange(-1, count - 1)
    if count:
        after[last], before[first] = first, last
    return after, before


def _means(values: Floats, group: Ints, otherwise: Floats) -> tuple[Floats, Flags]:
    """Mean of the values of each group, and which have fewer than two: ``otherwise`` there."""
    count = np.bincount(group, minlength=len(otherwise))
    total = np.bincount(group, weights=values, minlength=len(otherwise))
    bare = count < 2
    return np.where(bare, otherwise, total / np.maximum(count, 1)), bare


def _inner(runs: Runs, places: Floats, after: Ints, before: Ints) -> Ints:
    """Indices of the points that lie beside their side, away from its ends, and close to it."""
    along, offset = _split(runs)
    low = np.minimum(places[before], places[after])
    high = np.maximum(places[before], places[after])
    end = np.minimum(_END, (high - low) / 4)
    beside = (along >= (low + end)[runs.run]) & (along <= (high - end)[runs.run])
    return np.flatnonzero(beside & (np.abs(offset - places[runs.run]) <= _OUTLIER))


def _turned_to_fit(runs: Runs, inner: Ints) -> Runs:
    """The same runs in frames whose directions fit the inner points best."""
    run = runs.run[inner]
    size = np.maximum(np.bincount(run, minlength=len(runs.ring)), 1)
    x, y = (
        values - (np.bincount(run, weights=values, minlength=len(size)) / size)[run]
        for values in runs.points[inner].T
    )
    across = runs.across[run]
    along, aside = np.where(across, y, x), np.where(across, -x, y)
    owner, objects = runs.owner[run], len(runs.direction)
    slant = np.bincount(owner, weights=2 * along * aside, minlength=objects)
    spread = np.bincount(owner, weights=along**2 - aside**2, minlength=objects)
    angle = np.arctan2(slant, spread) / 2
    turn = turned(runs.points, -angle, runs.owner[runs.run])
    return Runs(turn, runs.run, runs.across, runs.ring, runs.ring_owner, runs.direction + angle)


def _distance(runs: Runs, places: Floats, after: Ints, before: Ints) -> Floats:
    """Distance of each point from the side that its run has become."""
    along, offset = _split(runs)
    low = np.minimum(places[before], places[after])[runs.run]
    high = np.maximum(places[before], places[after])[runs.run]
    beyond = np.maximum(np.maximum(low - along, along - high), 0)
    return np.hypot(offset - places[runs.run], beyond)
