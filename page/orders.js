// What an operator can ask for, and the dialog that asks for it. Nothing is shown as done until the server has said so.

const orders = {
  "force-open": { label: "Force open…", go: "Force open", holds: true, what: "Every call is refused until the hold is over or somebody releases it." },
  disable: { label: "Disable…", go: "Disable", holds: true, what: "Every call goes through and no rule applies, until the hold is over or somebody releases it." },
  release: { label: "Release…", go: "Release", what: "The hold ends. What the breaker does by itself shows again." },
  trip: { label: "Trip…", go: "Trip", what: "It opens now, as if a rule had been broken, and recovers by itself." },
  reset: { label: "Reset…", go: "Reset", what: "It closes now: empty window, no hold, no memory of earlier openings." },
};

// A browser takes these two for steps through a path, escaped or not.
export const addressable = {
  test: (name) => name !== "." && name !== "..",
  why: "A browser cannot send a request with this name in its path. Use another client, such as curl --path-as-is.",
};

export function offered(status, may) {
  if (!may || !addressable.test(status.name)) return [];
  const words = status.hold ? ["release", status.state === "disabled" ? "force-open" : "disable", "reset"] : status.state === "open" ? ["force-open", "disable", "reset"] : ["force-open", "disable", "trip", "reset"];
  return words.map((w) => [w, orders[w].label]);
}

export const path = (name, order) => `admin/circuit-breakers/${encodeURIComponent(name)}/${order}`;

export class OrderDialog {
  #name;
  #order;

  constructor(done) {
    this.done = done;
    this.dialog = document.getElementById("order");
    const $ = (id) => document.getElementById(`order-${id}`);
    this.parts = { title: $("title"), what: $("what"), reason: $("reason"), time: $("for"), timeField: $("for-field"), problem: $("problem"), go: $("go") };
    $("cancel").addEventListener("click", () => this.dialog.close());
    this.dialog.querySelector("form").addEventListener("submit", (e) => {
      e.preventDefault();
      this.#send();
    });
  }

  ask(name, order) {
    this.#name = name;
    this.#order = order;
    const p = this.parts, o = orders[order];
    p.title.textContent = `${o.go} “${name}”?`;
    p.what.textContent = o.what;
    p.reason.value = "";
    p.problem.textContent = "";
    p.timeField.hidden = !o.holds;
    p.go.textContent = o.go;
    p.go.disabled = false;
    this.dialog.dataset.order = order;
    this.dialog.showModal();
  }

  async #send() {
    const p = this.parts, name = this.#name, order = this.#order;
    const body = {};
    if (p.reason.value.trim()) body.reason = p.reason.value.trim();
    if (orders[order].holds && p.time.value) body.for = p.time.value;
    p.go.disabled = true;
    p.problem.textContent = "";
    try {
      const answer = await fetch(path(name, order), { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body), signal: AbortSignal.timeout(10000) });
      const said = await answer.json().catch(() => ({}));
      if (!answer.ok) throw new Error(said.error ?? `the server answered ${answer.status}`);
      this.dialog.close();
      this.done(name, orders[order].go);
    } catch (err) {
      p.problem.textContent = `Not done: ${err.name === "TimeoutError" ? "the server does not answer; look at the state before you try again" : err.message}`;
    } finally {
      p.go.disabled = false;
    }
  }
}
