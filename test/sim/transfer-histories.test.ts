/**
 * Drain and leave over simulated disks and wires: whatever breaks at whichever moment of it, each
 * mail has one owner in the end, and is delivered once.
 */
import { afterEach, expect, setDefaultTimeout, test } from 'bun:test'
import type { Mail, Sums } from './ledger.ts'
import { calmMail, type MailKnobs, MailSimulation } from './mail-simulate.ts'
import type { SimNode } from './node.ts'

/** Many runs of one history, beside other suites. */
setDefaultTimeout(120_000)

const MAILS = 40
/** Ms after the drain begins: between two questions, in the middle of a sync, on the wire. */
const MOMENTS = Array.from({ length: 10 }, (_, at) => 1 + at * 4)

const opened: MailSimulation[] = []
let seed = 7_000

afterEach(() => {
  for (const sim of opened.splice(0)) sim.close()
})

function calm(nodes: number): MailSimulation {
  seed += 1
  const tune = (knobs: MailKnobs): MailKnobs => ({ ...calmMail(knobs), nodes })
  const sim = new MailSimulation(seed, { tune })
  opened.push(sim)
  const isReady = (): boolean =>
    sim.nodes.every(({ run }) => run?.mail?.custody?.copies.candidates.all().length === nodes - 1)
  expect(sim.world.runTill(isReady, 20_000), `seed ${seed}`).toBe(true)
  return sim
}

/** Mails whose senders have read 250 from `at`; no next hop takes them yet. */
function queued(sim: MailSimulation, at: SimNode, count: number): readonly Mail[] {
  sim.hops.isDown = true
  const mails = Array.from({ length: count }, () => sim.world.act(() => sim.senders.send(at)))
  expect(sim.world.runTill(() => mails.every(({ acked }) => acked !== null), 30_000, 10)).toBe(true)
  return mails
}

function isDelivered(sim: MailSimulation, mails: readonly Mail[]): boolean {
  return mails.every((mail) =>
    mail.recipients.every((_, place) => sim.ledger.deliveries(mail, place).length > 0),
  )
}

/** All arrive, each once. */
function expectOnce(sim: MailSimulation, mails: readonly Mail[], withinMs: number): void {
  sim.hops.isDown = false
  expect(
    sim.world.runTill(() => isDelivered(sim, mails), withinMs),
    `seed ${seed}`,
  ).toBe(true)
  const { duplicates }: Sums = sim.rest()
  expect(
    [...duplicates.values()].reduce((sum, count) => sum + count, 0),
    `seed ${seed}`,
  ).toBe(0)
}

function setDrain(sim: MailSimulation, at: SimNode, drain: 'draining' | 'leaving' | 'accepting') {
  sim.world.act(() => at.cluster.roster.setDrain(at.id, drain, 'ruiz'))
}

test('the node that drains is cut off its power in the middle of it, at any moment', () => {
  for (const moment of MOMENTS) {
    const sim = calm(3)
    const [owner] = sim.nodes as [SimNode]
    const mails = queued(sim, owner, MAILS)
    setDrain(sim, owner, 'draining')
    sim.world.runFor(moment)
    sim.world.act(() => owner.crash(true))
    sim.world.runFor(3_000)
    sim.world.act(() => owner.start())
    sim.world.runFor(5_000)
    setDrain(sim, owner, 'accepting')
    expectOnce(sim, mails, 600_000)
    sim.close()
    opened.pop()
  }
})

test('a node that takes the queue over is cut off its power in the middle of it, at any moment', () => {
  for (const moment of MOMENTS) {
    const sim = calm(2)
    const [owner, target] = sim.nodes as [SimNode, SimNode]
    const mails = queued(sim, owner, MAILS)
    setDrain(sim, owner, 'draining')
    sim.world.runFor(moment)
    sim.world.act(() => target.crash(true))
    // Somebody thinks better of it, and the next hop answers: now a second owner would show.
    setDrain(sim, owner, 'accepting')
    sim.hops.isDown = false
    sim.world.runFor(5_000)
    sim.world.act(() => target.start())
    expectOnce(sim, mails, 600_000)
    sim.close()
    opened.pop()
  }
})

test('the wire between them is cut for a while in the middle of it, at any moment', () => {
  for (const moment of MOMENTS) {
    const sim = calm(2)
    const [owner, target] = sim.nodes as [SimNode, SimNode]
    const mails = queued(sim, owner, MAILS)
    setDrain(sim, owner, 'draining')
    sim.world.runFor(moment)
    const hosts = new Set([target.host, target.smtpHost])
    sim.cluster.fabric.cut('split', (from, to) => hosts.has(from) !== hosts.has(to))
    setDrain(sim, owner, 'accepting')
    sim.hops.isDown = false
    sim.world.runFor(60_000)
    sim.cluster.fabric.heal('split')
    expectOnce(sim, mails, 600_000)
    sim.close()
    opened.pop()
  }
})

test('a node that has left is not missed, nor one more after it', () => {
  const sim = calm(3)
  const [owner, second, third] = sim.nodes as [SimNode, SimNode, SimNode]
  const mails = [owner, second, third].flatMap((at) => [...queued(sim, at, MAILS)])
  setDrain(sim, owner, 'leaving')
  const isGone = (): boolean => second.cluster.roster.get(owner.id)?.standing === 'left'
  expect(sim.world.runTill(isGone, 120_000)).toBe(true)
  sim.world.act(() => owner.destroy(true))
  sim.lost(owner)
  sim.world.act(() => third.destroy(false))
  sim.lost(third)
  sim.hops.isDown = false
  expect(sim.world.runTill(() => isDelivered(sim, mails), 600_000)).toBe(true)
  expect(sim.rest().lostAlone).toBe(0)
})
