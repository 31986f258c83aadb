/**
 * Every long time of the rules for mail of a dead node, in one table (design: mail.md). Tests and
 * demonstrations shrink all of them by one factor, so that their order stays what it is.
 */

/** Times in ms. Who needs another long time adds a row. */
const MS = {
  // ---- A dead node

  /** So long every living member sees refusals before a death is confirmed. */
  confirmed: 15_000,
  /** Its mail is adopted so long after the refusals began; `remove`, replace, another spool: at once. */
  adoptConfirmed: 120_000,
  /** Its mail is adopted after so long a silence, when the witness is silent too. */
  adoptSilent: 600_000,
  /** The same where less than half of the members are in sight. */
  adoptMinority: 1_800_000,
  /** No takeover of what a drained node left so long ago. */
  drained: 600_000,

  /** What a dead holder had is copied anew after this. */
  heal: 15_000,

  // ---- Rejoin barrier, isolation

  /** Old mail waits so long while none of its holders is in reach. */
  barrier: 60_000,
  /** The owner goes on so long after the last frame that another holder acknowledged. */
  isolated: 570_000,
  /** Then it holds, at most until here; then the mail is in doubt. */
  isolatedEnd: 1_800_000,

  // ---- Release once

  /** A holder heard from in this time must have the claim; alone only after so long without its ack. */
  claim: 60_000,
  /** Unasked takeover of held mail: the refusals began so soon after the last contact. */
  takeover: 30_000,
  /** A deleted body is kept so long. */
  deleted: 600_000,

  // ---- Drain and leave, fates

  /** What `drain` takes unless told otherwise. */
  drain: 90_000,
  /** Final marks are kept so long, for a node that comes back. */
  fates: 604_800_000,

  // ---- Once-only jobs

  /** Without the result of a job the next node in rank does it. */
  job: 600_000,
} as const

export type Patience = { readonly [Row in keyof typeof MS as `${Row}Ms`]: number }

/** All times divided by `timeScale`: 1 in earnest, more in tests. */
export function patienceOf(timeScale: number): Patience {
  const scaled = Object.entries(MS).map(([row, ms]) => [`${row}Ms`, ms / timeScale])
  return Object.fromEntries(scaled) as Patience
}
