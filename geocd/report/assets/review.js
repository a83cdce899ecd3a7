// Verdicts of the reader: kept in this browser under the name of the run, exported as GeoJSON.

const VERDICTS = ["accepted", "rejected", "unsure"];

class Review {
  constructor(facts, changes) {
    this.facts = facts;
    this.changes = changes;
    this.key = `geocd-review:${facts.run}`;
    this.kept = true;
    this.verdicts = new Map();
    for (const [row, verdict, note] of changes.verdicts) {
      this.verdicts.set(String(changes.id[row]), { verdict, note });
    }
    this.load();
  }

  load() {
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "{}");
      for (const [id, entry] of Object.entries(stored)) {
        if (entry === null) this.verdicts.delete(id);
        else this.verdicts.set(id, entry);
      }
    } catch {
      this.kept = false;
    }
  }

  save() {
    // A verdict that came with the file and was taken back must stay taken back: null.
    const stored = Object.fromEntries(this.verdicts);
    for (const [row] of this.changes.verdicts) stored[String(this.changes.id[row])] ??= null;
    try {
      localStorage.setItem(this.key, JSON.stringify(stored));
      this.kept = true;
    } catch {
      this.kept = false;
    }
  }

  of(row) {
    return this.verdicts.get(String(this.changes.id[row])) ?? { verdict: "", note: "" };
  }

  // The same verdict again takes it back.
  mark(row, verdict) {
    const id = String(this.changes.id[row]);
    const old = this.of(row);
    if (old.verdict === verdict) this.verdicts.delete(id);
    else this.verdicts.set(id, { verdict, note: old.note });
    this.save();
  }

  annotate(row, note) {
    const { verdict } = this.of(row);
    if (!verdict) return;
    this.verdicts.set(String(this.changes.id[row]), { verdict, note });
    this.save();
  }

  clear() {
    this.verdicts.clear();
    this.save();
  }

  summary() {
    const counts = { accepted: 0, rejected: 0, unsure: 0 };
    for (const { verdict } of this.verdicts.values()) counts[verdict]++;
    return counts;
  }

  // RFC 7946, with a point inside each change; without a CRS nobody knows where it is.
  geojson() {
    const { points, id, kindOf } = this.changes;
    const features = [];
    for (let row = 0; row < this.changes.count; row++) {
      const { verdict, note } = this.of(row);
      if (!verdict) continue;
      features.push({
        type: "Feature",
        geometry: points === null ? null : { type: "Point", coordinates: points[row] },
        properties: { id: id[row], kind: kindOf.call(this.changes, row).name, verdict, note },
      });
    }
    return {
      type: "FeatureCollection",
      geocd: { run: this.facts.run, changes: this.facts.name, exported: new Date().toISOString() },
      features,
    };
  }

  download() {
    const text = JSON.stringify(this.geojson(), null, 1);
    const address = URL.createObjectURL(new Blob([text], { type: "application/geo+json" }));
    const stem = this.facts.name.replace(/\.[^.]*$/, "");
    const link = element("a", { href: address, download: `${stem}-verdicts.geojson` });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }
}

// Wilson interval at 95 %, as [share, low, high].
function wilson(hits, trials) {
  const z = 1.959964;
  const share = hits / trials;
  const centre = share + (z * z) / (2 * trials);
  const half = z * Math.sqrt((share * (1 - share)) / trials + (z * z) / (4 * trials * trials));
  const scale = 1 + (z * z) / trials;
  return [share, Math.max(0, (centre - half) / scale), Math.min(1, (centre + half) / scale)];
}
