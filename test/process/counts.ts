/** How much each suite does: a budget for `run test`, the full counts of the bars for `run soak`. */

export const isSoak = process.env['POSTERN_SOAK'] === '1'

/** The seed of everything random here; printed by each suite, POSTERN_SEED replays it. */
export const SEED = Number(process.env['POSTERN_SEED'] ?? 20_261_122)

/** `quick` in `run test`, `full` in `run soak`. */
function of(quick: number, full: number): number {
  return isSoak ? full : quick
}

export const COUNTS = {
  kills: of(20, 200),
  powerCuts: of(3, 10),
  /** Of three nodes together, and of the owner alone, in turn. */
  clusterCuts: of(2, 10),
  randomClients: of(20_000, 100_000),
  /** Messages of 4 KB, 50 KB and 1 MB in each cell of the relay table. */
  relay: { small: of(1_000, 1_000), middle: of(1_000, 1_000), large: of(100, 1_000) },
  /** Fixed seeds of a simulated cluster; then random ones for so many ms. */
  simulations: of(300, 2_000),
  simulationMs: of(120_000, 600_000),
  /** Fixed seeds of a simulated cluster that takes mail. */
  mailSimulations: of(60, 1_000),
  /** Mails that wait when a node starts. */
  waiting: of(20_000, 100_000),
  /** Mails that three nodes judge, each twice. */
  verdicts: of(60, 1_000),
  /** The same whose held mail is looked at. */
  heldSimulations: of(12, 300),
  starts: of(5, 20),
  handshakes: of(200, 2_000),
  /** Three nodes in chaos: how long, ms between two faults, mails a second together. */
  chaos: { ms: of(30_000, 300_000), everyMs: of(6_000, 20_000), perSecond: of(30, 50) },
  /**
   * Of the nodes on hosts: changes that are timed, entries deleted while one is away, held rows;
   * mails in the queue of a node that is drained, held mails of an owner that is cut off.
   */
  hosts: {
    changes: of(100, 1_000),
    deletes: of(200, 1_000),
    held: of(5_000, 100_000),
    drained: of(200, 10_000),
    apart: of(10, 100),
  },
} as const

/** Longest time of one test, ms. */
export const PATIENCE_MS = of(240_000, 3_600_000)
