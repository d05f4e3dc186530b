// What the page says, in words and numbers. No DOM here, no clock: all of it is a function of its arguments.

export const states = {
  closed: { name: "Closed", means: "every call goes through" },
  open: { name: "Open", means: "every call is refused until the next probe" },
  half_open: { name: "Half-open", means: "a few probes go through, the rest is refused" },
  forced_open: { name: "Forced open", means: "every call is refused: an operator holds it" },
  disabled: { name: "Disabled", means: "every call goes through and no rule applies: an operator holds it" },
};

export const stateName = (s) => states[s]?.name ?? String(s);

// The spaces are such as no line breaks at.
export function duration(seconds) {
  const s = Math.max(0, Math.floor(seconds));
  if (s < 60) return `${s}\u00a0s`;
  if (s < 3600) return `${Math.floor(s / 60)}\u00a0min\u00a0${s % 60}\u00a0s`;
  if (s < 86400) return `${Math.floor(s / 3600)}\u00a0h\u00a0${Math.floor((s % 3600) / 60)}\u00a0min`;
  return `${Math.floor(s / 86400)}\u00a0d\u00a0${Math.floor((s % 86400) / 3600)}\u00a0h`;
}

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenth = new Intl.NumberFormat("en", { maximumFractionDigits: 1 });

export const count = (n) => whole.format(n);
export const pace = (n) => (n > 0 && n < 0.05 ? "< 0.1" : n < 10 ? tenth.format(n) : whole.format(n));
export const percent = (f) => `${f > 0 && f < 0.1 ? tenth.format(100 * f) : whole.format(100 * f)}\u00a0%`;

// A rate and the threshold it reached, with as many digits as the threshold needs.
function against(observed, threshold) {
  let digits = 2;
  while (digits < 6 && Math.abs(threshold * 10 ** digits - Math.round(threshold * 10 ** digits)) > 1e-6) digits++;
  return `${observed.toFixed(digits)} ≥ ${threshold.toFixed(digits)}`;
}

const short = (seconds) => `${tenth.format(seconds)} s`;

export function tripText(trip) {
  switch (trip.rule) {
    case "consecutive_failures": return `${count(trip.observed)} consecutive failures ≥ ${count(trip.threshold)}`;
    case "failure_rate": return `failure rate ${against(trip.observed, trip.threshold)} over ${count(trip.calls)} calls`;
    case "slow_call_rate": return `slow-call rate ${against(trip.observed, trip.threshold)} over ${count(trip.calls)} calls`;
    case "probe_failed": return "a probe failed";
    case "probe_slow": return `a probe was slower than ${short(trip.threshold)}`;
    case "probe_lost": return `a probe gave no sign of life for ${short(trip.threshold)}`;
    case "probe_ignored": return `${count(trip.observed)} probes in a row without a verdict`;
    case "retry_after": return `the upstream asked for a pause of ${short(trip.observed)}`;
    case "manual": return "tripped by hand" + (trip.reason ? `: ${trip.reason}` : "");
  }
  return trip.rule;
}

const rules = {
  open_timeout: "the wait was over", recovered: "the probes succeeded", reset: "reset by hand", hold: "held by hand", release: "released by hand",
  hold_expired: "the hold ran out", consecutive_failures: "failures in a row", failure_rate: "failure rate", slow_call_rate: "slow-call rate",
  probe_failed: "a probe failed", probe_slow: "a probe was slow", probe_lost: "a probe was lost", probe_ignored: "probes without a verdict",
  retry_after: "the upstream asked for a pause", manual: "tripped by hand",
};

export const ruleText = (rule) => rules[rule] ?? rule;

export function holdText(hold) {
  return [hold.by && `by ${hold.by}`, hold.reason].filter(Boolean).join(": ") || "no reason given";
}

export function windowText(config) {
  return config.window_seconds ? `of the last ${duration(config.window_seconds)}` : `of the last ${count(config.window_calls)} calls`;
}

const clockFormat = new Intl.DateTimeFormat("en-GB", { hour: "2-digit", minute: "2-digit", second: "2-digit" });
const dayFormat = new Intl.DateTimeFormat("en-GB", { day: "numeric", month: "short" });

// A wall-clock time as the reader's own zone has it, with its day once that is not the last twenty hours.
export function clock(ms, now) {
  return (Math.abs(now - ms) > 72e6 ? dayFormat.format(ms) + ", " : "") + clockFormat.format(ms);
}

export function plural(n, one, many) {
  return `${count(n)} ${n === 1 ? one : many}`;
}
