/** Histories of mail that seeds of the swarm found, each in a calm world but for its faults. */
import { afterEach, expect, setDefaultTimeout, test } from 'bun:test'
import { calm, closeAll, duplicates, expectDelivered, node, ownersOf, queued } from './mail-calm.ts'

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
