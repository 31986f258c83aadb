/**
 * The swarm of held mail: sealed bodies on two nodes, clicks everywhere, owners that die. A failure
 * prints `SIM_SEED=N`; POSTERN_SIM_SEEDS makes it shorter or longer.
 */
import { expect, setDefaultTimeout, test } from 'bun:test'
import type { MessageId } from '../../src/base/ids.ts'
import { Taken } from '../../src/cluster/taken.ts'
import { COUNTS } from '../process/counts.ts'
import { RECIPIENTS } from './held.ts'
import { around } from './mail-calm.ts'
import { simulateHeld } from './mail-held.ts'
import { calmMail, MailSimulation } from './mail-simulate.ts'
import type { SimNode } from './node.ts'
import { Seen } from './seen.ts'

const SEEDS = Number(process.env['POSTERN_SIM_SEEDS'] ?? COUNTS.heldSimulations)
const ENOUGH_SEEDS = 12
const PATIENCE_MS = 3_600_000
setDefaultTimeout(120_000)

const SOMETIMES: readonly string[] = [
  'held mail has a second body',
  'held mail taken over',
  'click refused: conflict',
]

test(
  'held mail is released once, and not lost while a node with its body lives',
  () => {
    const seen = new Seen()
    let released = 0
    for (let seed = 1; seed <= SEEDS; seed += 1) {
      const ended = simulateHeld(seed)
      seen.add(ended.seen)
      released += ended.released
    }
    expect(released).toBeGreaterThan(SEEDS * 20)
    if (SEEDS >= ENOUGH_SEEDS) expect(seen.never(SOMETIMES)).toEqual([])
    expect(simulateHeld(1).hash).toBe(simulateHeld(1).hash)
  },
  PATIENCE_MS,
)

/**
 * An owner is cut off from its holders, somebody releases there, and it is killed before they hear of
 * it. Gives who released the mail, in order.
 */
function releasedApart(): readonly string[] {
  const released: string[] = []
  const sim = new MailSimulation(1, {
    tune: calmMail,
    onReleased: ({ name }) => released.push(name),
  })
  try {
    const { world, cluster } = sim
    const [owner, ...others] = sim.nodes as [SimNode, SimNode, SimNode]
    const click = (at: SimNode, id: MessageId): void => {
      const click = { kind: 'release', recipient: RECIPIENTS[0] ?? null, anyway: false } as const
      world.act(() => at.run?.held.click(id, click).catch(() => {}))
    }
    world.runFor(20_000)
    const id = world.act(() => owner.run?.held.hold()) as MessageId
    const isHealed = (): boolean => others.some(({ bodies }) => bodies.kept.has(id))
    expect(world.runTill(isHealed, 60_000)).toBe(true)
    world.runFor(20_000)
    cluster.fabric.cut('split', around(owner))
    click(owner, id)
    world.runFor(10_000)
    world.act(() => owner.crash(false))
    cluster.fabric.heal('split')
    const isTaken = (): boolean =>
      others.some(({ id: node, run }) => run?.held.quarantine.one(id)?.row.owner.id === node)
    expect(world.runTill(isTaken, 300_000, 500)).toBe(true)
    for (const other of others) click(other, id)
    world.runFor(120_000)
    world.act(() => owner.start())
    world.runFor(120_000)
    return released
  } finally {
    sim.close()
  }
}

test('an owner that is killed after a claim that nobody heard of: who takes over releases it, once', () => {
  const released = releasedApart()
  expect(released).toHaveLength(1)
  expect(released).not.toContain('mx1')
})

test('a claim that takes effect without the holders is found', () => {
  const { prototype } = Taken
  const { by } = prototype
  prototype.by = () => Promise.resolve()
  try {
    expect(releasedApart()).toHaveLength(2)
  } finally {
    prototype.by = by
  }
})
