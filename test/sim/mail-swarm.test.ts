/**
 * The swarm of mail: many seeds, each a cluster with its own disks, wires, next hops, senders and
 * faults, one of them in most seeds the loss of a disk. A failure prints `SIM_SEED=N`;
 * POSTERN_SIM_SEEDS makes it shorter or longer.
 */
import { expect, test } from 'bun:test'
import { COUNTS } from '../process/counts.ts'
import { simulateMail } from './mail-simulate.ts'
import { Seen } from './seen.ts'

const SEEDS = Number(process.env['POSTERN_SIM_SEEDS'] ?? COUNTS.mailSimulations)
/** One in so many is run twice. */
const TWICE = 10
/** From so many on, what never happened is a failure. */
const ENOUGH_SEEDS = 60
const PATIENCE_MS = 3_600_000

/** What must happen somewhere in the seeds, or they prove nothing. */
const SOMETIMES: readonly string[] = [
  'adopted by confirmed death',
  'adopted by silence',
  'adopted after a removal',
  'adopted from a disk that is gone',
  'stale answered',
  'possible duplicate resolved: once',
  'barred: alone',
  'healed',
  'in doubt delivered',
  'XFER',
  'torn record dropped',
  'unsynced write lost',
  'power cut of all',
  '250 lost',
  'next hop hung up after the dot',
]

test(
  'what is acknowledged is kept under every mix of faults, and the faults happen',
  () => {
    const seen = new Seen()
    let accepted = 0
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const ended = simulateMail(seed)
      seen.add(ended.seen)
      accepted += ended.accepted
      if (seed % TWICE === 0) expect(simulateMail(seed).hash, `seed ${seed}`).toBe(ended.hash)
    }
    expect(accepted).toBeGreaterThan(SEEDS * 50)
    if (SEEDS >= ENOUGH_SEEDS) expect(seen.never(SOMETIMES)).toEqual([])
  },
  PATIENCE_MS,
)
