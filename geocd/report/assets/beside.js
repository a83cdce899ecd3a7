// Lines beside the changes: centrelines of roads, gaps, and the footprint of the run.

// Colour, width and dashes, in pixels of the screen; a casing makes each stand out anywhere.
const LINES = {
  footprint: { colour: "#fff", width: 1.5, dashes: [10, 5] },
  not_observed: { colour: "#c8c8c8", width: 1.5, dashes: [3, 3] },
  centrelines: { colour: "#f0e442", width: 1.5, dashes: [] },
};

const CASING = "rgba(0, 0, 0, 0.55)";

class Beside {
  constructor(facts) {
    this.quantum = facts.quantum;
    this.paths = Object.keys(LINES).filter((name) => name in facts.beside)
      .map((name) => [name, this.path(facts.beside[name])]);
    this.hidden = new Set();
  }

  path(lines) {
    const path = new Path2D();
    for (const line of lines) {
      let [x, y] = [0, 0];
      for (let i = 0; i < line.length; i += 2) {
        x += line[i] * this.quantum;
        y += line[i + 1] * this.quantum;
        if (i === 0) path.moveTo(x, y);
        else path.lineTo(x, y);
      }
    }
    return path;
  }

  draw(context, scale) {
    context.lineJoin = "round";
    for (const [name, path] of this.paths) {
      if (this.hidden.has(name)) continue;
      const { colour, width, dashes } = LINES[name];
      for (const [more, stroke] of [[1.5, CASING], [0, colour]]) {
        context.setLineDash(more ? [] : dashes.map((length) => length / scale));
        context.lineWidth = (width + more) / scale;
        context.strokeStyle = stroke;
        context.stroke(path);
      }
    }
    context.setLineDash([]);
  }
}
