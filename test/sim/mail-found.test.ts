/** Histories of mail that seeds of the swarm found, each in a calm world but for its faults. */
import { afterEach, expect, setDefaultTimeout, test } from 'bun:test'
import {
  around,
  calm,
  calmSenders,
  closeAll,
  duplicates,
  expectDelivered,
  holdersOf,
  node,
  ownersOf,
  queued,
} from './mail-calm.ts'

const MINUTE_MS = 60_000

setDefaultTimeout(120_000)
afterEach(closeAll)

test('an heir is lost, and the first in rank has delivered before it heard of him: nobody waits for it', () => {
  const sim = calm(3)
  const [owner, heir, third] = [node(sim, 0), node(sim, 1), node(sim, 2)]
  const mails = queued(sim, owner, 20)
  sim.world.act(() => owner.crash(false))
  sim.world.runFor(150_000)
  expect(mails.every((mail) => ownersOf(sim, mail).length === 1)).toBe(true)
  expect(mails.every((mail) => sim.copiesOf(mail.acked?.mid as never) === 3)).toBe(true)
  sim.world.act(() => heir.destroy(false))
  sim.lost(heir)
  sim.world.act(() => third.crash(false))
  // It is alone, and the others have taken over what it has.
  sim.world.act(() => owner.start())
  sim.hops.isDown = false
  expectDelivered(sim, mails, 70_000)
  sim.world.act(() => third.start())
  const sums = sim.rest()
  expect(duplicates(sums)).toBeLessThanOrEqual(40)
})

test('a crash right after the dot: who was refused in the same attempt is told so all the same', () => {
  const sim = calm(2, { senders: { ...calmSenders(), refused: 0.5 } })
  const owner = node(sim, 0)
  const mails = queued(sim, owner, 20)
  const isMixed = mails.some(
    ({ recipients }) => new Set(recipients.map(({ taste }) => taste)).size > 1,
  )
  expect(isMixed).toBe(true)
  sim.hops.onTaken = () => owner.crash(false)
  sim.hops.isDown = false
  sim.world.runFor(5_000)
  sim.hops.onTaken = null
  sim.world.act(() => owner.start())
  sim.rest()
})

test('two sides of a cut take over at once, with equal terms: one gives way before it delivers', () => {
  const sim = calm(3)
  const [owner, one, two] = [node(sim, 0), node(sim, 1), node(sim, 2)]
  const mails = queued(sim, owner, 10)
  // A holder that is away for a while: then there are two.
  for (const holder of [one, two]) {
    sim.world.act(() => holder.crash(false))
    sim.world.runFor(60_000)
    sim.world.act(() => holder.start())
    sim.world.runFor(30_000)
  }
  for (const mail of mails) expect(holdersOf(sim, mail)).toHaveLength(2)
  sim.cluster.fabric.cut(
    'split',
    (from, to) => [one.host, two.host].sort().join() === [from, to].sort().join(),
  )
  sim.world.act(() => owner.crash(false))
  sim.world.runFor(5 * MINUTE_MS)
  for (const mail of mails) expect(ownersOf(sim, mail)).toEqual([one, two])
  sim.cluster.fabric.heal('split')
  sim.world.runFor(20_000)
  for (const mail of mails) expect(ownersOf(sim, mail)).toHaveLength(1)
  sim.hops.isDown = false
  expect(duplicates(sim.rest())).toBe(0)
})

test('an heir that was cut off does not know of a copy made meanwhile: it is forgotten all the same', () => {
  const sim = calm(3)
  const [owner, heir, third] = [node(sim, 0), node(sim, 1), node(sim, 2)]
  const mails = queued(sim, owner, 10).filter((mail) => holdersOf(sim, mail).includes(heir))
  expect(mails.length).toBeGreaterThan(0)
  sim.hops.unreached.add(owner)
  sim.hops.isDown = false
  sim.cluster.fabric.cut('split', around(heir))
  sim.world.runFor(60_000)
  for (const mail of mails) expect(holdersOf(sim, mail)).toContain(third)
  expectDelivered(sim, mails, 35 * MINUTE_MS)
  sim.cluster.fabric.heal('split')
  // It hears of the heir before it reaches a next hop.
  sim.world.runFor(20_000)
  const sums = sim.rest()
  expect(duplicates(sums)).toBe(0)
  for (const mail of mails) expect(holdersOf(sim, mail)).toEqual([])
})
