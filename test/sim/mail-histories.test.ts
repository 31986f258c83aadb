/**
 * The failure matrix of mail: each row a history by its name, in a calm world but for the fault.
 * What is expected of all: nothing with two copies is lost, and each duplicate has a cause that
 * was counted. A failure says the seed and the row.
 */
import { afterEach, describe, expect, setDefaultTimeout, test } from 'bun:test'
import type { Mail } from './ledger.ts'
import {
  around,
  calm,
  calmSenders,
  closeAll,
  deliveriesOf,
  duplicates,
  expectDelivered,
  holdersOf,
  isDelivered,
  midOf,
  node,
  ownersOf,
  queued,
} from './mail-calm.ts'
import type { SimNode } from './node.ts'

const MINUTE_MS = 60_000
/** Mail is taken without a second copy, which a seed may forbid. */
const ALONE_TOO = { settings: { 'cluster.copies': 'prefer' } } as const
/** Some live through an hour, beside other suites. */
setDefaultTimeout(120_000)
afterEach(closeAll)

describe('the owner is killed after 250', () => {
  test('and never comes back: a holder delivers within 150 s', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.world.act(() => owner.destroy(false))
    sim.lost(owner)
    sim.hops.isDown = false
    expectDelivered(sim, mails, 150_000)
    expect(sim.world.nowMs).toBeGreaterThan(120_000)
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('and never comes back, in silence: it is adopted after 10 min', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.world.act(() => owner.destroy(true))
    sim.lost(owner)
    sim.hops.isDown = false
    sim.world.runFor(9 * MINUTE_MS)
    expect(mails.flatMap((mail) => deliveriesOf(sim, mail))).toEqual([])
    expectDelivered(sim, mails, 3 * MINUTE_MS)
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('and is removed: a holder delivers at once', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.world.act(() => owner.destroy(true))
    sim.lost(owner)
    sim.hops.isDown = false
    sim.world.runFor(1_000)
    sim.world.act(() => node(sim, 1).cluster.roster.evict(owner.id, 'ruiz'))
    owner.isRemoved = true
    expectDelivered(sim, mails, 10_000)
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('and comes back with an empty disk: a holder delivers at once', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.world.act(() => owner.crash(false))
    owner.wipeSpool()
    sim.lost(owner)
    sim.hops.isDown = false
    sim.world.runFor(2_000)
    sim.world.act(() => owner.start())
    expectDelivered(sim, mails, 20_000)
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('and comes back before anybody adopts: it delivers, once', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.world.act(() => owner.crash(false))
    sim.hops.isDown = false
    sim.world.runFor(60_000)
    sim.world.act(() => owner.start())
    expectDelivered(sim, mails, 30_000)
    for (const mail of mails) {
      for (const { node: by } of deliveriesOf(sim, mail)) expect(by).toBe(owner.id)
    }
    expect(duplicates(sim.rest())).toBe(0)
  })
})

describe('the owner is killed', () => {
  test('during inspection: nobody delivers what was not inspected; the sender tries again', () => {
    const sim = calm(3, { inspectMs: 10_000 })
    const owner = node(sim, 0)
    const mail = sim.world.act(() => sim.senders.send(owner))
    sim.world.runFor(100)
    expect(mail.submissions).toHaveLength(1)
    sim.world.act(() => owner.destroy(false))
    const sums = sim.rest()
    expect(mail.submissions.length).toBeGreaterThan(1)
    expect(deliveriesOf(sim, mail)).toHaveLength(mail.recipients.length)
    expect(duplicates(sums)).toBe(0)
  })

  for (const comesBack of [true, false]) {
    const end = comesBack ? 'and comes back' : 'and does not come back'
    test(`between the 250 of the next hop and DONE, ${end}: at most one more, counted`, () => {
      const sim = calm(3)
      const owner = node(sim, 0)
      const [mail] = queued(sim, owner, 1) as [Mail]
      sim.hops.onTaken = () => {
        sim.hops.onTaken = null
        if (comesBack) owner.crash(false)
        else owner.destroy(false)
      }
      sim.hops.isDown = false
      expectDelivered(sim, [mail], 60_000)
      if (comesBack) sim.world.act(() => owner.start())
      else sim.lost(owner)
      const sums = sim.rest()
      const times = deliveriesOf(sim, mail).length / mail.recipients.length
      expect(times).toBeLessThanOrEqual(2)
      expect(sums.lostAlone).toBe(0)
    })
  }
})

describe('the mirror is killed', () => {
  test('at four fifths of a large body: the next candidate has all of it before 250', () => {
    const sim = calm(3)
    const [owner, ...others] = sim.nodes as [SimNode, SimNode, SimNode]
    sim.hops.isDown = true
    const body = { bytes: 2_000_000, recipients: 1 }
    const mail = sim.world.act(() => sim.senders.send(owner, body))
    // Whoever gets the bytes.
    const before = others.map(({ host }) => sim.cluster.fabric.trafficOf(host).tcpIn)
    const mirror = (): SimNode | undefined =>
      others.find(
        ({ host }, index) =>
          sim.cluster.fabric.trafficOf(host).tcpIn - (before[index] ?? 0) > 1_000_000,
      )
    expect(sim.world.runTill(() => mirror() !== undefined, 30_000, 1)).toBe(true)
    expect(mail.acked).toBeNull()
    sim.world.act(() => mirror()?.crash(false))
    expect(sim.world.runTill(() => mail.acked !== null, 30_000, 10)).toBe(true)
    expect(mail.submissions).toHaveLength(1)
    expect(mail.acked?.copies).toBe(2)
    sim.hops.isDown = false
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('before its ack: 250 comes from the second candidate, with two copies', () => {
    const sim = calm(3, { inspectMs: 2_000 })
    const owner = node(sim, 0)
    sim.hops.isDown = true
    const mail = sim.world.act(() => sim.senders.send(owner, { recipients: 1 }))
    for (const other of sim.nodes.slice(1))
      other.spool.pace = { writeMs: 0.1, syncMs: 500, stalls: 0 }
    expect(sim.world.runTill(() => sim.ledger.isInspected(mail), 60_000, 1)).toBe(true)
    sim.world.runFor(10)
    const first = sim.nodes
      .slice(1)
      .find(({ spool }) => mail.submissions.some(({ mid }) => spool.seen(mid)))
    expect(first).toBeDefined()
    sim.world.act(() => first?.crash(true))
    expect(sim.world.runTill(() => mail.acked !== null, 30_000, 10)).toBe(true)
    expect(mail.submissions).toHaveLength(1)
    expect(mail.acked?.copies).toBeGreaterThanOrEqual(2)
    sim.hops.isDown = false
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('and its acknowledgement is lost: the next candidate, and no copy is left behind', () => {
    const sim = calm(3, { inspectMs: 1_000 })
    const [owner, ...others] = sim.nodes as [SimNode, SimNode, SimNode]
    sim.hops.isDown = true
    const mail = sim.world.act(() => sim.senders.send(owner, { recipients: 1 }))
    // What the mirror has written does not come back.
    const hasIt = (): SimNode | undefined =>
      others.find(({ spool }) => mail.submissions.some(({ mid }) => spool.durable(mid).length > 0))
    sim.world.runTill(() => hasIt() !== undefined, 30_000, 0.2)
    const mirror = hasIt()
    expect(mirror).toBeDefined()
    if (mirror !== undefined) sim.cluster.fabric.clog(mirror.host, owner.host)
    expect(sim.world.runTill(() => mail.acked !== null, 60_000, 10)).toBe(true)
    expect(mail.submissions).toHaveLength(1)
    expect(mail.acked?.copies).toBeGreaterThanOrEqual(2)
    sim.hops.isDown = false
    expect(duplicates(sim.rest())).toBe(0)
    expect(holdersOf(sim, mail)).toEqual([])
  })
})

describe('a partition', () => {
  test('of 60 s: both sides accept all along, nothing arrives twice', () => {
    const sim = calm(3, ALONE_TOO)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.cluster.fabric.cut('split', around(owner))
    sim.hops.isDown = false
    sim.world.runFor(20_000)
    const more = sim.nodes.map((at) => sim.world.act(() => sim.senders.send(at)))
    sim.world.runFor(40_000)
    for (const mail of more) expect(mail.acked?.node).toBe(mail.submissions[0]?.node as never)
    sim.cluster.fabric.heal('split')
    const sums = sim.rest()
    expect(isDelivered(sim, [...mails, ...more])).toBe(true)
    expect(duplicates(sums)).toBe(0)
  })

  test('of 20 min, and the next hops are away: the minority holds what the others adopt', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.cluster.fabric.cut('split', around(owner))
    sim.world.runFor(11 * MINUTE_MS)
    sim.hops.isDown = false
    expectDelivered(sim, mails, 5 * MINUTE_MS)
    for (const mail of mails) {
      for (const { node: by } of deliveriesOf(sim, mail)) expect(by).not.toBe(owner.id)
    }
    sim.cluster.fabric.heal('split')
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('of 20 min, and the owner delivers meanwhile: at most what was queued at the cut', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.cluster.fabric.cut('split', around(owner))
    sim.hops.isDown = false
    sim.world.runFor(20 * MINUTE_MS)
    sim.cluster.fabric.heal('split')
    const sums = sim.rest()
    const recipients = mails.reduce((sum, mail) => sum + mail.recipients.length, 0)
    expect(duplicates(sums)).toBeLessThanOrEqual(recipients)
    expect([...sums.duplicates.keys()].every((cause) => cause === 'unsent marks')).toBe(true)
  })

  test('of the peers only, for 20 min: the witness hears the owner, nobody adopts', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const mails = queued(sim, owner, 5)
    sim.cluster.fabric.cut('split', (from, to) => (from === owner.host) !== (to === owner.host))
    sim.world.runFor(9 * MINUTE_MS)
    sim.hops.isDown = false
    sim.world.runFor(11 * MINUTE_MS)
    expect(isDelivered(sim, mails)).toBe(true)
    sim.cluster.fabric.heal('split')
    expect(duplicates(sim.rest())).toBe(0)
  })
})

describe('the owner stands still', () => {
  for (const how of ['is stopped', 'sleeps'] as const) {
    test(`${how} for 15 min with mail on three mirrors: it resumes nothing that was adopted`, () => {
      const sim = calm(4)
      const owner = node(sim, 0)
      const mails = queued(sim, owner, 40)
      expect(new Set(mails.flatMap((mail) => holdersOf(sim, mail))).size).toBe(3)
      if (how === 'sleeps') owner.suspend(15 * MINUTE_MS)
      else owner.stall(15 * MINUTE_MS)
      sim.hops.isDown = false
      expectDelivered(sim, mails, 14 * MINUTE_MS)
      sim.world.runFor(5 * MINUTE_MS)
      for (const mail of mails) expect(ownersOf(sim, mail)).toEqual([])
      expect(duplicates(sim.rest())).toBe(0)
    })
  }
})

describe('a cluster of two', () => {
  test('one dies for good: the other delivers everything, and takes mail all along', () => {
    const sim = calm(2, ALONE_TOO)
    const [owner, other] = [node(sim, 0), node(sim, 1)]
    const mails = queued(sim, owner, 5)
    sim.world.act(() => owner.destroy(false))
    sim.lost(owner)
    sim.hops.isDown = false
    const more = sim.world.act(() => sim.senders.send(other))
    sim.world.runFor(10_000)
    expect(more.acked).not.toBeNull()
    expectDelivered(sim, mails, 150_000)
    expect(duplicates(sim.rest())).toBe(0)
  })

  for (const isolation of ['deliver', 'hold'] as const) {
    test(`that lost each other for 30 min, and isolation is ${isolation}`, () => {
      const settings = { 'cluster.isolation': isolation, 'queue.first': 60, 'queue.longest': 60 }
      const sim = calm(2, { settings })
      const [one, two] = [node(sim, 0), node(sim, 1)]
      const mails = [...queued(sim, one, 3), ...queued(sim, two, 3)]
      sim.cluster.fabric.cut('split', around(one))
      sim.world.runFor(10 * MINUTE_MS)
      sim.hops.isDown = false
      sim.world.runFor(15 * MINUTE_MS)
      sim.cluster.fabric.heal('split')
      const sums = sim.rest()
      expect(isDelivered(sim, mails)).toBe(true)
      if (isolation === 'hold') expect(duplicates(sums)).toBe(0)
    })
  }
})

describe('a restart', () => {
  test('of 3 s: copies go both ways as soon as it knows what became of its mail', () => {
    for (let turn = 0; turn < 40; turn += 1) {
      const sim = calm(3)
      const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
      queued(sim, b, 5)
      sim.world.act(() => b.crash(false))
      sim.world.runFor(3_000)
      const startedMs = sim.world.nowMs
      sim.world.act(() => b.start())
      const chooses = (at: SimNode, other: SimNode): boolean =>
        at.run?.mail?.custody?.copies.candidates.has(other.id) === true
      const isBack = (): boolean => b.run?.mail?.custody?.copies.takesCopies === true
      expect(sim.world.runTill(isBack, 2_000, 1)).toBe(true)
      sim.world.runFor(50)
      const hasLink = (at: SimNode, other: SimNode): boolean =>
        (at.run?.cluster?.links.get(other.id) ?? null) !== null
      const linked = [a, c].filter((at) => hasLink(b, at))
      expect({ turn, all: linked.every((at) => chooses(at, b)) }).toEqual({ turn, all: true })
      // Who did not miss it dials at once, and each end of a link says at once that it has it.
      const isLinked = () => [a, c].every((at) => hasLink(at, b) && hasLink(b, at))
      expect(sim.world.runTill(isLinked, startedMs + 1_500 - sim.world.nowMs, 1)).toBe(true)
      sim.world.runFor(20)
      const all = [a, c].every((at) => chooses(at, b) && chooses(b, at))
      expect({ turn, all }).toEqual({ turn, all: true })
    }
  })

  test('that reaches only a node which has just joined asks those who had copies', () => {
    const sim = calm(3)
    const [owner, a, b] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    const mails = queued(sim, owner, 5)
    sim.world.act(() => owner.crash(false))
    sim.world.runFor(150_000)
    expect(mails.every((mail) => ownersOf(sim, mail).length === 1)).toBe(true)
    // Adopted; now the owner comes back and reaches neither of those who know of it.
    const fresh = sim.join(a)
    sim.cluster.fabric.cut('split', (from, to) => {
      const known = new Set([a.host, b.host, a.smtpHost, b.smtpHost])
      return (from === owner.host && known.has(to)) || (to === owner.host && known.has(from))
    })
    expect(fresh.isUp).toBe(true)
    sim.world.act(() => owner.start())
    sim.world.runFor(10_000)
    sim.hops.isDown = false
    sim.world.runFor(10_000)
    for (const mail of mails) {
      for (const { node: by } of deliveriesOf(sim, mail)) expect(by).not.toBe(owner.id)
    }
    sim.cluster.fabric.heal('split')
    expect(duplicates(sim.rest())).toBe(0)
  })

  test('of all, one after the other, under load: no 5xx, none lost, none doubled', () => {
    const sim = calm(3, {
      senders: { ...calmSenders(), everyMs: 100 },
    })
    sim.senders.begin()
    for (const at of sim.nodes) {
      sim.world.runFor(10_000)
      sim.world.act(() => at.cluster.roster.setDrain(at.id, 'draining', 'ruiz'))
      const isDrained = (): boolean => at.cluster.roster.get(at.id)?.drain === 'drained'
      expect(sim.world.runTill(isDrained, 90_000)).toBe(true)
      sim.world.act(() => at.crash(false))
      sim.world.runFor(3_000)
      sim.world.act(() => at.start())
      sim.world.runFor(5_000)
      sim.world.act(() => at.cluster.roster.setDrain(at.id, 'accepting', 'ruiz'))
    }
    sim.world.runFor(10_000)
    const sums = sim.rest()
    expect(sums.accepted).toBeGreaterThan(200)
    expect(duplicates(sums)).toBe(0)
  })

  test('of all at once, by a power cut: everything acknowledged arrives', () => {
    const sim = calm(3, { senders: { ...calmSenders(), everyMs: 30 } })
    sim.senders.begin()
    sim.world.runFor(10_000)
    for (const at of sim.nodes) sim.world.act(() => at.crash(true))
    sim.world.runFor(5_000)
    for (const at of sim.nodes) sim.world.act(() => at.start())
    sim.world.runFor(30_000)
    const sums = sim.rest()
    expect(sums.lostAlone).toBe(0)
    expect([...sums.duplicates.keys()].every((cause) => cause !== 'unsent marks')).toBe(true)
  })
})

describe('a disk', () => {
  test('that is full takes no mail and no copies; the others do, and it drains', () => {
    const sim = calm(3)
    const full = node(sim, 0)
    const mails = queued(sim, full, 5)
    full.spool.isFull = true
    sim.world.runFor(6_000)
    expect(full.run?.mail?.custody?.copies.takesCopies).toBe(false)
    // What is written ahead is used up; then it says 452.
    const big = Array.from({ length: 12 }, () =>
      sim.world.act(() => sim.senders.send(full, { bytes: 200_000, recipients: 1 })),
    )
    sim.world.runFor(1_000)
    expect(big.some(({ acked }) => acked === null)).toBe(true)
    const others = sim.nodes.slice(1).map((at) => sim.world.act(() => sim.senders.send(at)))
    sim.world.runFor(10_000)
    for (const mail of others) expect(mail.acked?.copies).toBe(2)
    const isChosen = (): boolean =>
      node(sim, 1).run?.mail?.custody?.copies.candidates.has(full.id) === true
    expect(isChosen()).toBe(false)
    full.spool.isFull = false
    // Of its disk it knows once a second, and so often it looks what it says of itself.
    expect(sim.world.runTill(isChosen, 2_050, 1)).toBe(true)
    sim.hops.isDown = false
    expectDelivered(sim, mails, 60_000)
    expect(duplicates(sim.rest())).toBe(0)
  })

  for (const where of ['tail', 'middle'] as const) {
    test(`damaged at the ${where}: what it lost comes from a holder`, () => {
      const sim = calm(3)
      const owner = node(sim, 0)
      const mails = queued(sim, owner, 10)
      sim.world.act(() => owner.crash(false))
      sim.lost(owner)
      const hit = owner.spool.damage(where === 'tail' ? 0.97 : 0.4, 300)
      expect(hit.size).toBeGreaterThan(0)
      sim.world.act(() => owner.start())
      sim.hops.isDown = false
      sim.rest()
      expect(isDelivered(sim, mails)).toBe(true)
    })
  }

  test('of before, as a snapshot had it: nothing that was delivered since goes out again', () => {
    const sim = calm(3)
    const owner = node(sim, 0)
    const old = queued(sim, owner, 5)
    const image = owner.snapshot()
    sim.hops.isDown = false
    expectDelivered(sim, old, 60_000)
    // What the holders were not told yet nobody can know: the unsent batch.
    sim.world.runFor(1_000)
    const more = queued(sim, owner, 3)
    sim.world.act(() => owner.crash(true))
    owner.restore(image)
    sim.lost(owner, image.atMs)
    sim.world.act(() => owner.start())
    sim.hops.isDown = false
    const sums = sim.rest()
    expect(isDelivered(sim, more)).toBe(true)
    expect(duplicates(sums)).toBe(0)
    expect(sim.world.seen.get('rolled back, and it was told so')).toBe(1)
  })
})

test('a clock that jumps by 10 min lets nothing expire, and adopts nothing', () => {
  const sim = calm(3)
  const owner = node(sim, 0)
  const mails = queued(sim, owner, 5)
  for (const at of sim.nodes.slice(0, 2)) at.time.skewMs += 10 * MINUTE_MS
  sim.world.runFor(60_000)
  sim.hops.isDown = false
  expectDelivered(sim, mails, 60_000)
  for (const mail of mails) {
    for (const { node: by } of deliveriesOf(sim, mail)) expect(by).toBe(owner.id)
  }
  expect(duplicates(sim.rest())).toBe(0)
})

test('copies are required and nobody is there: what fails is bounced, and the queue goes on', () => {
  const settings = { 'cluster.copies': 'require', 'queue.first': 3, 'queue.longest': 20 }
  const sim = calm(2, { settings, senders: { ...calmSenders(), refused: 1 } })
  const owner = node(sim, 0)
  const mails = queued(sim, owner, 5)
  const other = node(sim, 1)
  sim.world.act(() => other.destroy(false))
  sim.lost(other)
  sim.hops.isDown = false
  sim.world.runFor(60_000)
  expect(owner.run?.mail?.queue.size).toBe(0)
  expect(sim.rest().bounced).toBe(mails.reduce((sum, mail) => sum + mail.recipients.length, 0))
})

test('a holder is lost: each of its copies is made anew within 30 s', () => {
  const sim = calm(3)
  const owner = node(sim, 0)
  const mails = queued(sim, owner, 10)
  const holder = holdersOf(sim, mails[0] as Mail)[0] as SimNode
  sim.world.act(() => holder.destroy(false))
  sim.lost(holder)
  const isHealed = (): boolean => mails.every((mail) => sim.copiesOf(midOf(mail)) >= 2)
  expect(sim.world.runTill(isHealed, 15_000 + 30_000)).toBe(true)
  sim.hops.isDown = false
  expect(duplicates(sim.rest())).toBe(0)
})

describe('the owner is killed, its mail is taken over and not delivered yet, and it comes back', () => {
  /** How often a delivery was counted as one that may be the second, and a doubt was ended. */
  function doubts(
    isHeirRestarted: boolean,
  ): readonly [mails: number, counted: number, ended: number] {
    // The heir has not tried it itself by then.
    const sim = calm(2, { settings: { 'queue.first': 600, 'queue.longest': 600 } })
    const [owner, heir] = [node(sim, 0), node(sim, 1)]
    const mails = queued(sim, owner, 3)
    sim.world.runFor(5_000)
    sim.world.act(() => owner.crash(false))
    const isTaken = (): boolean => mails.every((mail) => ownersOf(sim, mail).includes(heir))
    expect(sim.world.runTill(isTaken, 200_000)).toBe(true)
    if (isHeirRestarted) {
      // Its marks may be lost, what says that it owns them is not.
      sim.world.act(() => heir.crash(true))
      sim.world.runFor(5_000)
      sim.world.act(() => heir.start())
      sim.world.runFor(5_000)
    }
    sim.world.act(() => owner.start())
    sim.world.runFor(2 * MINUTE_MS)
    sim.hops.isDown = false
    expectDelivered(sim, mails, 20 * MINUTE_MS)
    const recipients = mails.flatMap((mail) => mail.recipients)
    const count = (what: string): number => sim.world.seen.get(what) ?? 0
    expect(duplicates(sim.rest())).toBe(0)
    return [
      recipients.length,
      count('in doubt delivered'),
      count('possible duplicate resolved: open'),
    ]
  }

  test('having delivered nothing: nothing is in doubt any more', () => {
    const [recipients, counted, ended] = doubts(false)
    expect([counted, ended]).toEqual([0, recipients])
  })

  test('nor after its heir was restarted meanwhile', () => {
    const [recipients, counted, ended] = doubts(true)
    expect([counted, ended]).toEqual([0, recipients])
  })

  /** Its heir is restarted after `tries`. Gives how many doubts were ended: it had delivered all. */
  function endedAfter(tries: (sim: ReturnType<typeof calm>) => void): readonly [number, number] {
    const sim = calm(2, { settings: { 'queue.first': 10, 'queue.longest': 20 } })
    const [owner, heir] = [node(sim, 0), node(sim, 1)]
    const mails = queued(sim, owner, 3)
    // Its marks do not reach the heir.
    sim.cluster.fabric.cut('apart', around(owner))
    sim.hops.isDown = false
    expectDelivered(sim, mails, 60_000)
    sim.hops.isDown = true
    sim.world.runFor(1_000)
    sim.world.act(() => owner.crash(false))
    sim.cluster.fabric.heal('apart')
    const isTaken = (): boolean => mails.every((mail) => ownersOf(sim, mail).includes(heir))
    expect(sim.world.runTill(isTaken, 200_000)).toBe(true)
    tries(sim)
    sim.world.act(() => heir.crash(true))
    sim.world.act(() => heir.start())
    sim.world.runFor(MINUTE_MS)
    sim.world.act(() => owner.start())
    sim.world.runFor(MINUTE_MS)
    sim.rest()
    const ended = sim.world.seen.get('possible duplicate resolved: once') ?? 0
    return [mails.flatMap((mail) => mail.recipients).length, ended]
  }

  test('with what it had delivered: that is said, also when its heir was restarted after its first try', () => {
    const [recipients, ended] = endedAfter((sim) => sim.world.runFor(MINUTE_MS))
    expect(ended).toBe(recipients)
  })

  test('with what it had delivered, and its heir has put dots out before its restart: nobody says how often', () => {
    const [, ended] = endedAfter((sim) => {
      const { mood } = sim.hops
      sim.hops.mood = { ...mood, hangsUp: 1 }
      sim.hops.isDown = false
      sim.world.runFor(MINUTE_MS)
      sim.hops.isDown = true
      sim.hops.mood = mood
      expect(sim.world.seen.get('next hop hung up after the dot')).toBeGreaterThan(2)
    })
    expect(ended).toBe(0)
  })
})
