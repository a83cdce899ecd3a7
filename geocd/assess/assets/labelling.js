// Labels of a sample's units: kept in this browser under the name of the sample, exported as CSV.

const byId = (id) => document.getElementById(id);

class Labels {
  constructor(facts) {
    this.facts = facts;
    this.key = `geocd-labels:${facts.sample}`;
    this.kept = true;
    this.of = new Map(); // unit: { reference, note }
    try {
      const stored = JSON.parse(localStorage.getItem(this.key) ?? "[]");
      for (const [unit, entry] of stored) this.of.set(unit, entry);
    } catch {
      this.kept = false;
    }
  }

  get(unit) {
    return this.of.get(unit) ?? { reference: "", note: "" };
  }

  set(unit, change) {
    const entry = { ...this.get(unit), ...change };
    if (entry.reference || entry.note) this.of.set(unit, entry);
    else this.of.delete(unit);
    try {
      localStorage.setItem(this.key, JSON.stringify([...this.of]));
      this.kept = true;
    } catch {
      this.kept = false;
    }
  }

  count() {
    return [...this.of.values()].filter(({ reference }) => reference).length;
  }

  // RFC 4180; every row names the sample, so that labels of another cannot be mixed in.
  csv() {
    const quoted = (text) => `"${String(text).replaceAll('"', '""')}"`;
    const rows = [["sample", "unit", "reference", "note"]];
    for (let unit = 1; unit <= this.facts.units; unit++) {
      const { reference, note } = this.get(unit);
      if (reference) rows.push([this.facts.sample, unit, reference, note]);
    }
    return rows.map((row) => `${row.map(quoted).join(",")}\r\n`).join("");
  }

  download() {
    const address = URL.createObjectURL(new Blob([this.csv()], { type: "text/csv" }));
    const link = element("a", { href: address, download: this.facts.file });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  }
}

// Both dates of each unit, cut out of one run of bytes.
class Chips {
  constructor(facts) {
    this.type = facts.type;
    this.bytes = bytesOf("images");
    this.ends = [];
    let end = 0;
    for (const size of facts.bytes) this.ends.push((end += size));
    this.shown = [];
  }

  show(unit) {
    for (const address of this.shown) URL.revokeObjectURL(address);
    this.shown = ["before", "after"].map((date, place) => {
      const index = 2 * (unit - 1) + place;
      const part = this.bytes.subarray(this.ends[index - 1] ?? 0, this.ends[index]);
      const address = URL.createObjectURL(new Blob([part], { type: this.type }));
      byId(date).src = address;
      return address;
    });
  }
}

class Desk {
  constructor(facts) {
    this.facts = facts;
    this.labels = new Labels(facts);
    this.chips = new Chips(facts);
    this.buttons = facts.labels.map(([value, words], place) => {
      const button = element("button", { type: "button", "data-label": value },
        `${words} `, element("kbd", {}, String(place + 1)));
      button.addEventListener("click", () => this.mark(value));
      return button;
    });
    byId("labels").append(...this.buttons);
    document.documentElement.style.setProperty("--side", facts.side);
    byId("progress").max = facts.units;
    byId("previous").addEventListener("click", () => this.go(this.unit - 1));
    byId("next").addEventListener("click", () => this.go(this.unit + 1));
    byId("open").addEventListener("click", () => this.goToOpen());
    byId("zoom").addEventListener("click", () => this.zoom());
    byId("export").addEventListener("click", () => this.labels.download());
    byId("note").addEventListener("change", (event) => this.annotate(event.target.value));
    document.addEventListener("keydown", (event) => this.key(event));
    this.go(this.nextOpen(facts.units) ?? 1);
  }

  go(unit) {
    this.unit = ((unit - 1 + this.facts.units) % this.facts.units) + 1;
    this.chips.show(this.unit);
    this.draw();
  }

  // The next unit after one, around the end, that has no label.
  nextOpen(unit) {
    for (let step = 0; step < this.facts.units; step++) {
      const next = ((unit + step) % this.facts.units) + 1;
      if (!this.labels.get(next).reference) return next;
    }
    return undefined;
  }

  goToOpen() {
    this.go(this.nextOpen(this.unit) ?? this.unit);
  }

  // The same label again takes it back.
  mark(value) {
    const again = this.labels.get(this.unit).reference === value;
    this.labels.set(this.unit, { reference: again ? "" : value });
    if (again) this.draw();
    else this.goToOpen();
  }

  annotate(note) {
    this.labels.set(this.unit, { note: note.trim() });
    this.draw();
  }

  zoom() {
    const closer = document.querySelector(".dates").classList.toggle("closer");
    byId("zoom").setAttribute("aria-pressed", String(closer));
  }

  key(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.id === "note") {
      if (event.key === "Enter" || event.key === "Escape") event.target.blur();
      return;
    }
    const place = Number(event.key);
    if (place >= 1 && place <= this.facts.labels.length) this.mark(this.facts.labels[place - 1][0]);
    else if (event.key === "ArrowLeft") this.go(this.unit - 1);
    else if (event.key === "ArrowRight") this.go(this.unit + 1);
    else if (event.key === " ") this.goToOpen();
    else if (event.key === "z") this.zoom();
    else if (event.key === "n") byId("note").focus();
    else return;
    event.preventDefault();
  }

  draw() {
    const { reference, note } = this.labels.get(this.unit);
    const done = this.labels.count();
    byId("unit").textContent = `Unit ${this.unit} of ${this.facts.units}`;
    byId("progress").value = done;
    byId("count").textContent = `${done} of ${this.facts.units} labelled`;
    byId("note").value = note;
    byId("export").disabled = done === 0;
    for (const button of this.buttons) {
      button.setAttribute("aria-pressed", String(button.dataset.label === reference));
    }
    byId("trouble").hidden = this.labels.kept;
    byId("trouble").textContent =
      "This browser keeps nothing for this page: export the labels before you close it.";
  }
}

unpack("facts").then((facts) => {
  window.geocdLabels = new Desk(facts);
  document.documentElement.dataset.ready = "yes";
});
