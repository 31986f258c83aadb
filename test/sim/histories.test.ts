/**
 * Histories with a name: what must come of one fault, or of two that meet, in a calm world. The
 * failure matrix of the design and the rows K05 to K20 of the catalogue of faults, as far as they
 * are about what nodes have in common.
 */
import { afterEach, describe, expect, test } from 'bun:test'
import { RefusalError } from '../../src/base/errors.ts'
import { headInForce, isConflict } from '../../src/config/merge.ts'
import { CALM, type Cut } from './network.ts'
import { FUTURE_KIND, type SimNode } from './node.ts'
import { type Knobs, Simulation } from './simulate.ts'

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000
/** From the end of a cut to equal digests, however long it was. */
const HEAL_MS = 5_000

const opened: Simulation[] = []
let seed = 0

afterEach(() => {
  for (const sim of opened.splice(0)) sim.close()
})

/** Nodes that know each other, and nobody who does anything. */
function calm(nodes: number, part: Partial<Knobs> = {}): Simulation {
  seed += 1
  const sim = new Simulation(seed, {
    tune: (knobs) => ({
      ...knobs,
      nodes,
      weather: CALM,
      batchBytes: 1_000_000,
      lostPushes: 0,
      faults: { ...knobs.faults, clocks: false },
      ...part,
    }),
  })
  opened.push(sim)
  sim.world.runFor(3_000)
  expectEqual(sim, 5_000)
  return sim
}

function expectEqual(sim: Simulation, withinMs: number): void {
  expect(sim.world.runTill(() => sim.areEqual(), withinMs, 50)).toBe(true)
}

const node = (sim: Simulation, index: number): SimNode => {
  const found = sim.nodes[index]
  if (found === undefined) throw new Error(`there is no node ${index}`)
  return found
}

const valueAt = (at: SimNode, key: string, kind = 'setting'): string | null | undefined => {
  const cell = at.rows.cell(kind, key)
  return cell === null ? undefined : headInForce(cell, 'latest').value
}

const between =
  (one: SimNode, two: SimNode): Cut =>
  (from, to) =>
    (from === one.host && to === two.host) || (from === two.host && to === one.host)

const around =
  (one: SimNode): Cut =>
  (from, to) =>
    (from === one.host) !== (to === one.host)

const lifeOf = (at: SimNode, of: SimNode): string | undefined => at.cluster.members.get(of.id)?.life

const tcpOut = (sim: Simulation): number =>
  sim.nodes.reduce((sum, { host }) => sum + sim.fabric.trafficOf(host).tcpOut, 0)

describe('a partition', () => {
  for (const cutMs of [15_000, 60_000, 300_000]) {
    const name = `of ${cutMs / 1_000} s, different settings edited: both survive, equal in 5 s`
    test(`${name} (K09, K15)`, () => {
      const sim = calm(3)
      const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
      sim.fabric.cut('split', around(a))
      sim.world.runFor(cutMs)
      sim.work.write(a, 'setting', 'one', '"here"')
      sim.work.write(b, 'setting', 'two', '"there"')
      sim.world.runFor(2_000)
      sim.fabric.heal('split')
      expectEqual(sim, HEAL_MS)
      for (const at of [a, b, c]) {
        expect([valueAt(at, 'one'), valueAt(at, 'two')]).toEqual(['"here"', '"there"'])
      }
      sim.rest()
    })
  }

  test('two sides edit one setting: one winner everywhere, and the conflict is listed', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.fabric.cut('split', around(a))
    sim.work.write(a, 'setting', 'same', '"a"')
    sim.world.runFor(2_000)
    sim.work.write(b, 'setting', 'same', '"b"')
    sim.world.runFor(12_000)
    sim.fabric.heal('split')
    expectEqual(sim, HEAL_MS)
    for (const at of [a, b, c]) {
      expect(valueAt(at, 'same')).toBe('"b"')
      const cell = at.rows.cell('setting', 'same')
      expect(cell !== null && isConflict(cell)).toBe(true)
    }
    // Who saw both decides: the conflict is over everywhere.
    sim.work.write(c, 'setting', 'same', '"a"')
    expectEqual(sim, 2_000)
    expect(isConflict(a.rows.cell('setting', 'same') as never)).toBe(false)
    sim.rest()
  })

  test('a deletion here and an edit there stand beside each other', () => {
    const sim = calm(2)
    const [a, b] = [node(sim, 0), node(sim, 1)]
    sim.work.write(a, 'domain', 'x.example', '{}')
    expectEqual(sim, 2_000)
    sim.fabric.cut('split', around(a))
    sim.work.write(a, 'domain', 'x.example', null)
    sim.work.write(b, 'domain', 'x.example', '{"to":"b"}')
    sim.world.runFor(12_000)
    sim.fabric.heal('split')
    expectEqual(sim, HEAL_MS)
    for (const at of [a, b]) {
      const values = at.rows.cell('domain', 'x.example')?.heads.map(({ value }) => value)
      expect(values?.toSorted()).toEqual(['{"to":"b"}', null].toSorted())
    }
    sim.rest()
  })

  test('two sides make the same thing: one row, not two (K15)', () => {
    const sim = calm(2)
    const [a, b] = [node(sim, 0), node(sim, 1)]
    sim.fabric.cut('split', around(a))
    sim.work.write(a, 'operator', 'kim', '{"role":"viewer"}')
    sim.work.write(b, 'operator', 'kim', '{"role":"viewer"}')
    sim.world.runFor(5_000)
    sim.fabric.heal('split')
    expectEqual(sim, HEAL_MS)
    expect(a.rows.list('operator')).toHaveLength(1)
    expect(isConflict(a.rows.cell('operator', 'kim') as never)).toBe(false)
    sim.rest()
  })

  test('without one pair (a bridge) rows go round by the node between (K09)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.fabric.cut('bridge', between(a, c))
    sim.world.runFor(60_000)
    expect(a.cluster.links.get(c.id)).toBe(null)
    sim.work.write(a, 'setting', 'k', '"1"')
    expectEqual(sim, 10_000)
    expect(valueAt(c, 'k')).toBe('"1"')
    expect([lifeOf(a, c), lifeOf(c, a), lifeOf(b, a)]).toEqual(['alive', 'alive', 'alive'])
  })

  test('one way only: alive, not usable in both directions, rows go round', () => {
    const sim = calm(3)
    const [a, , c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.fabric.cut('one way', (from, to) => from === a.host && to === c.host)
    sim.world.runFor(60_000)
    sim.work.write(a, 'setting', 'k', '"1"')
    expectEqual(sim, 10_000)
    expect([lifeOf(a, c), lifeOf(c, a)]).toEqual(['alive', 'alive'])
    expect([a.cluster.members.isUsable(c.id), c.cluster.members.isUsable(a.id)]).toEqual([
      false,
      false,
    ])
  })

  test('on and off once a second for a minute: no storm of events, and equal after it', () => {
    const sim = calm(3)
    const a = node(sim, 0)
    const before = sim.world.events
    for (let second = 0; second < 60; second += 1) {
      sim.fabric.cut('flap', around(a))
      sim.world.runFor(500)
      sim.fabric.heal('flap')
      sim.world.runFor(500)
      sim.work.write(a, 'setting', `k${second % 5}`, `"${second}"`)
    }
    expect((sim.world.events - before) / 60).toBeLessThan(400)
    expectEqual(sim, HEAL_MS)
    sim.rest()
  })

  test('of an hour between two halves: two working clusters become one again by themselves', () => {
    const sim = calm(4)
    const side = new Set([node(sim, 0).host, node(sim, 1).host])
    sim.fabric.cut('split', (from, to) => side.has(from) !== side.has(to))
    for (let minute = 0; minute < 60; minute += 1) {
      sim.work.write(node(sim, minute % 4), 'setting', `k${minute}`, `"${minute}"`)
      sim.world.runFor(60_000)
    }
    sim.fabric.heal('split')
    expectEqual(sim, HEAL_MS)
    expect(node(sim, 3).rows.list('setting')).toHaveLength(60)
    sim.rest()
  }, 60_000)

  test('of datagrams alone: everybody is alive by TCP', () => {
    const sim = calm(3)
    const [a, b] = [node(sim, 0), node(sim, 1)]
    sim.fabric.cut('udp', (_, __, plane) => plane === 'udp')
    sim.world.runFor(120_000)
    expect([lifeOf(a, b), lifeOf(b, a)]).toEqual(['alive', 'alive'])
    expect(a.cluster.members.get(b.id)).toMatchObject({ udp: false, tcp: true })
    sim.work.write(a, 'setting', 'k', '"1"')
    expectEqual(sim, 2_000)
  })
})

describe('the network', () => {
  test('that loses a tenth, doubles a third and reorders: everything arrives once (K10)', () => {
    const sim = calm(4, {
      weather: { ...CALM, loss: 0.1, duplicate: 0.3, jitterMs: 200, reset: 0.01, pieces: 'crumbs' },
    })
    for (let count = 0; count < 60; count += 1) {
      sim.work.write(node(sim, count % 4), 'block', `k${count}`, '{}')
      sim.world.runFor(500)
    }
    expectEqual(sim, 30_000)
    sim.rest()
  })

  test('with one slow wire (64 kbit/s): the other nodes do not wait for it (K17)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.fabric.slow(c.host, 8_000)
    for (let count = 0; count < 300; count += 1) sim.work.write(c, 'block', `bulk${count}`, '{}')
    sim.work.write(a, 'setting', 'k', '"1"')
    expect(sim.world.runTill(() => valueAt(b, 'k') === '"1"', 1_000, 20)).toBe(true)
    expectEqual(sim, 120_000)
  })

  test('a node that stands still for 6 s is not dead, one for 60 s comes back (K17)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    for (let turn = 0; turn < 5; turn += 1) {
      c.stall(6_000)
      sim.world.runFor(15_000)
      expect([lifeOf(a, c), lifeOf(b, c)]).not.toContain('dead')
    }
    c.stall(60_000)
    sim.world.runFor(1_000)
    sim.work.write(a, 'setting', 'k', '"1"')
    expect(sim.world.runTill(() => valueAt(b, 'k') === '"1"', 1_000, 20)).toBe(true)
    sim.world.runFor(60_000)
    expectEqual(sim, 30_000)
    expect(sim.world.runTill(() => lifeOf(a, c) === 'alive', 30_000)).toBe(true)
  })

  test('another address after a restart is followed (K13)', () => {
    const sim = calm(3)
    const [a, , c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.world.act(() => c.crash(false))
    c.host = '10.0.1.77'
    sim.world.act(() => c.start())
    expectEqual(sim, 10_000)
    sim.world.act(() => a.crash(false))
    sim.world.act(() => a.start())
    sim.work.write(a, 'setting', 'k', '"1"')
    expectEqual(sim, 10_000)
    expect(a.cluster.roster.get(c.id)?.peer).toEqual([c.address])
  })

  test('a node of another cluster is never mixed in', () => {
    const sim = calm(2)
    const [a, b] = [node(sim, 0), node(sim, 1)]
    const stranger = sim.addNode()
    sim.world.act(() => stranger.start())
    sim.world.runFor(1_000)
    sim.work.write(stranger, 'setting', 'k', '"foreign"')
    // It knows where they are, and dials.
    sim.world.act(() => stranger.cluster.roster.admit(a.applicant, 'ruiz'))
    stranger.isRemoved = true
    sim.world.runFor(60_000)
    expect(stranger.cluster.links.get(a.id)).toBe(null)
    expect([valueAt(a, 'k'), valueAt(b, 'k')]).toEqual([undefined, undefined])
  })
})

describe('who listens on the wire', () => {
  test('and sends all of it again, after a restart too, changes nothing and gets no answer (K01, K02)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    const heard: Uint8Array[] = []
    let answers = 0
    const tap = sim.fabric.tap
    sim.fabric.tap = (bytes, from, to, plane) => {
      tap?.(bytes, from, to, plane)
      if (to === '10.9.9.9') answers += 1
      if (plane === 'udp' && from !== '10.9.9.9') heard.push(bytes.slice())
    }
    sim.world.runFor(30_000)
    sim.world.act(() => b.crash(false))
    sim.world.act(() => b.start())
    sim.world.runFor(10_000)
    const vector = JSON.stringify([...a.rows.vector()])
    const thief = { host: '10.9.9.9', port: 4_000 }
    for (const [index, bytes] of heard.splice(0).entries()) {
      const broken = bytes.slice()
      const place = index % bytes.length
      broken[place] = (bytes[place] ?? 0) ^ (1 << (index % 8))
      for (const { address } of [a, b, c]) {
        sim.fabric.sendDatagram(bytes, thief, address)
        sim.fabric.sendDatagram(broken, thief, address)
        sim.fabric.sendDatagram(bytes.slice(0, place), thief, address)
      }
      sim.world.runFor(20)
    }
    expect(answers).toBe(0)
    expect([lifeOf(a, b), lifeOf(b, c), lifeOf(c, a)]).toEqual(['alive', 'alive', 'alive'])
    expect(JSON.stringify([...a.rows.vector()])).toBe(vector)
    // And nobody looks for b where the thief is.
    sim.world.act(() => a.cluster.links.get(b.id)?.close('anew'))
    expect(sim.world.runTill(() => a.cluster.links.get(b.id) !== null, 10_000)).toBe(true)
  })
})

describe('a clock', () => {
  test('an hour ahead: its rows wait, its settings page says why, the others go on (K12)', () => {
    const sim = calm(3, {})
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    c.time.skewMs += HOUR_MS
    sim.world.runFor(30_000)
    expect(c.cluster.sync.clockTrouble()).not.toBe(null)
    expect([a, b].map((at) => at.cluster.sync.clockTrouble())).toEqual([null, null])
    c.rows.write('setting', 'k', '"future"', 'cli')
    sim.work.write(a, 'setting', 'other', '"1"')
    sim.world.runFor(10_000)
    expect([valueAt(a, 'k'), valueAt(b, 'k')]).toEqual([undefined, undefined])
    expect(a.rows.parked).toBeGreaterThan(0)
    expect(valueAt(c, 'other')).toBe('"1"')
    // The hour goes by, and the clock is set right.
    for (const at of [a, b]) at.time.skewMs += HOUR_MS
    expectEqual(sim, 60_000)
    expect(valueAt(a, 'k')).toBe('"future"')
  })

  test('an hour behind: it says so and waits, and loses nothing when it is right again (K12)', () => {
    const sim = calm(3)
    const [a, , c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    c.time.skewMs -= HOUR_MS
    sim.world.runFor(10_000)
    expect(c.cluster.sync.clockTrouble()).not.toBe(null)
    c.rows.write('setting', 'k', '"behind"', 'cli')
    sim.world.runFor(1_000)
    expect(valueAt(a, 'k')).toBe('"behind"')
    sim.work.write(a, 'setting', 'k', '"right"')
    sim.world.runFor(10_000)
    expect([valueAt(c, 'k'), c.rows.parked]).toEqual(['"behind"', 1])
    c.time.skewMs += HOUR_MS
    expectEqual(sim, 15_000)
    expect(valueAt(c, 'k')).toBe('"right"')
    expect(c.rows.parked).toBe(0)
  })

  test('in 1970 and five days ahead: membership and links do not care', () => {
    const sim = calm(4)
    const [a, , c, d] = [node(sim, 0), node(sim, 1), node(sim, 2), node(sim, 3)]
    c.time.skewMs -= 56 * 365 * DAY_MS
    d.time.skewMs += 5 * DAY_MS
    sim.world.runFor(60_000)
    expect([lifeOf(a, c), lifeOf(a, d), lifeOf(c, d)]).toEqual(['alive', 'alive', 'alive'])
    expect(a.cluster.links.get(c.id)).not.toBe(null)
    sim.work.write(a, 'setting', 'k', '"1"')
    expect(sim.world.runTill(() => valueAt(d, 'k') === '"1"', 5_000)).toBe(true)
  })
})

describe('a disk', () => {
  test('that is full: nothing is acknowledged, the node goes on, and takes it later', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    c.disk.fail('SQLITE_FULL', 0, 1_000_000)
    sim.work.write(a, 'setting', 'k', '"1"')
    sim.world.runFor(20_000)
    expect([valueAt(b, 'k'), valueAt(c, 'k')]).toEqual(['"1"', undefined])
    expect(a.cluster.sync.lagOf(c.id).rows).toBeGreaterThan(0)
    expect(lifeOf(a, c)).toBe('alive')
    c.disk.heal()
    expectEqual(sim, 60_000)
    sim.world.runFor(6_000)
    expect(a.cluster.sync.lagOf(c.id).rows).toBe(0)
  })

  test('that went back: new writes are not lost, and its own lost ones come back (K20)', () => {
    const sim = calm(3)
    const [a, , c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    const image = { atMs: sim.world.nowMs, memory: c.memory.copy(), ...c.disk.image() }
    for (let count = 0; count < 20; count += 1) sim.work.write(c, 'setting', `k${count}`, '"old"')
    expectEqual(sim, 5_000)
    sim.world.act(() => c.crash(true))
    c.images = [image]
    expect(c.rollBack()).toBe(true)
    sim.world.act(() => c.start())
    sim.work.write(c, 'setting', 'k0', '"new"')
    sim.work.write(c, 'setting', 'later', '"new"')
    expectEqual(sim, 10_000)
    expect(valueAt(c, 'k19')).toBe('"old"')
    expect(valueAt(a, 'later')).toBe('"new"')
    sim.rest()
  })

  test('that went back to before a deletion that all others have forgotten: it stays deleted', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.work.write(a, 'allow', 'k', '{}')
    expectEqual(sim, 5_000)
    const image = { atMs: sim.world.nowMs, memory: c.memory.copy(), ...c.disk.image() }
    sim.work.write(b, 'allow', 'k', null)
    expectEqual(sim, 5_000)
    for (const { time } of sim.nodes) time.skewMs += 30 * DAY_MS
    sim.world.runFor(180_000)
    expect([a, b, c].map(({ rows }) => rows.cell('allow', 'k'))).toEqual([null, null, null])
    // Whoever came later knows of it too, and may be the only one that is there.
    const { token } = sim.world.act(() => a.cluster.invitations.invite({}, 'ruiz'))
    const late = sim.addNode()
    late.time.skewMs += 30 * DAY_MS
    sim.world.wait(late.join(token, a))
    sim.world.act(() => late.start())
    expectEqual(sim, 10_000)
    for (const at of [a, b, c]) sim.world.act(() => at.crash(true))
    c.images = [image]
    expect(c.rollBack()).toBe(true)
    sim.world.act(() => c.start())
    sim.world.runFor(30_000)
    expect(valueAt(c, 'k', 'allow') ?? null).toBeNull()
    for (const at of [a, b]) sim.world.act(() => at.start())
    expectEqual(sim, HEAL_MS)
    sim.rest()
  })

  test('of all nodes at once: started in any order they are one again', () => {
    const sim = calm(4)
    for (const at of sim.nodes) sim.work.write(at, 'setting', at.name, '"1"')
    for (const at of sim.nodes) sim.world.act(() => at.crash(true))
    sim.world.runFor(30_000)
    for (const at of [...sim.nodes].reverse()) {
      sim.world.act(() => at.start())
      sim.world.runFor(20_000)
      // Each serves from its own disk, whoever is there.
      expect(valueAt(at, at.name)).toBe('"1"')
    }
    expectEqual(sim, HEAL_MS)
    sim.rest()
  })
})

describe('a long absence', () => {
  test('1,000 deletions later nothing comes back, and the traffic is the difference (K11)', () => {
    const sim = calm(3)
    const [a, , c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.world.act(() =>
      a.rows.transact(() => {
        for (let count = 0; count < 3_000; count += 1) {
          a.rows.write('block', `k${count}`, '{"note":"an address that sent spam"}', 'kim')
        }
      }),
    )
    expectEqual(sim, 60_000)
    sim.world.act(() => c.crash(true))
    sim.world.act(() =>
      a.rows.transact(() => {
        for (let count = 0; count < 1_000; count += 1)
          a.rows.write('block', `k${count}`, null, 'kim')
      }),
    )
    for (const { time } of sim.nodes) time.skewMs += 60 * DAY_MS
    sim.world.runFor(120_000)
    const before = tcpOut(sim)
    sim.world.act(() => c.start())
    expectEqual(sim, 60_000)
    expect(
      c.rows
        .list('block')
        .filter(({ state }) => state.shape === 'cell' && state.heads[0]?.value !== null),
    ).toHaveLength(2_000)
    // 3,000 rows of some 250 bytes are the state; 1,000 of them differ.
    expect(tcpOut(sim) - before).toBeLessThan(1_000 * 600)
    // Now that everybody has the deletions they go.
    sim.world.runFor(180_000)
    expect(a.rows.list('block')).toHaveLength(2_000)
    expectEqual(sim, 30_000)
    sim.rest()
  }, 60_000)

  test('what was made anew meanwhile is no conflict with a deletion that only it remembers', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.work.write(a, 'allow', 'k', '{}')
    sim.work.write(a, 'allow', 'k', null)
    expectEqual(sim, 5_000)
    sim.world.runFor(15_000)
    sim.world.act(() => c.crash(true))
    for (const { time } of sim.nodes) time.skewMs += 30 * DAY_MS
    sim.world.runFor(180_000)
    expect([a, b].map(({ rows }) => rows.cell('allow', 'k'))).toEqual([null, null])
    sim.work.write(a, 'allow', 'k', '{"again":true}')
    sim.world.act(() => c.start())
    expectEqual(sim, 60_000)
    expect(c.rows.cell('allow', 'k')?.heads.map(({ value }) => value)).toEqual(['{"again":true}'])
    sim.rest()
  })
})

describe('a member', () => {
  test('that was removed is refused everywhere, with all that it wrote since (K05)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.fabric.cut('stolen', around(c))
    sim.world.act(() => a.cluster.roster.evict(c.id, 'ruiz'))
    c.isRemoved = true
    sim.world.runFor(10_000)
    sim.work.write(c, 'setting', 'k', '"of the thief"')
    sim.fabric.heal('stolen')
    sim.world.runFor(120_000)
    expect([a.cluster.links.get(c.id), b.cluster.links.get(c.id)]).toEqual([null, null])
    expect([valueAt(a, 'k'), valueAt(b, 'k')]).toEqual([undefined, undefined])
    // Also after a restart of everybody.
    for (const at of [a, b, c]) sim.world.act(() => at.crash(false))
    for (const at of [a, b, c]) sim.world.act(() => at.start())
    sim.world.runFor(60_000)
    expect([valueAt(a, 'k'), valueAt(b, 'k')]).toEqual([undefined, undefined])
  })

  test('that is removed is shut out of every node within 10 s', () => {
    const sim = calm(5)
    const thief = node(sim, 4)
    sim.world.act(() => node(sim, 0).cluster.roster.evict(thief.id, 'ruiz'))
    thief.isRemoved = true
    const isOut = (): boolean =>
      sim.core.every((at) => at.cluster.links.get(thief.id) === null && at.hasRemoved(thief.id))
    expect(sim.world.runTill(isOut, 10_000)).toBe(true)
  })

  test('that runs twice is seen, one of the two is refused, and nothing is lost (K13)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.work.write(c, 'setting', 'before', '"1"')
    expectEqual(sim, 5_000)
    const twin = sim.addNode(c)
    twin.isRemoved = true
    sim.world.act(() => twin.start())
    const isSeen = (at: SimNode): boolean =>
      at.cluster.links.duplicates().some(({ node: id }) => id === c.id)
    expect(sim.world.runTill(() => isSeen(a) && isSeen(b), 60_000)).toBe(true)
    sim.work.write(c, 'setting', 'after', '"1"')
    sim.world.runFor(10_000)
    expect([valueAt(a, 'before'), valueAt(b, 'after')]).toEqual(['"1"', '"1"'])
    sim.world.act(() => twin.destroy())
    expectEqual(sim, 30_000)
    sim.rest()
  })

  test('of a later version: kinds and fields that are not known here travel through (K18)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    sim.fabric.cut('bridge', between(a, c))
    sim.world.runFor(30_000)
    const head = {
      author: 'kim',
      because: 'x',
      seq: 1,
      stamp: 1,
      value: '{}',
      writer: 'ffffffffffff',
    }
    const state = { context: [['ffffffffffff', 1]], heads: [head], shape: 'cell' }
    const row = { kind: FUTURE_KIND, key: 'k', state }
    const as = { kind: 'push', writer: 'ffffffffffff', after: 0, upto: 1 } as const
    sim.world.act(() => a.rows.apply({ peer: a.id, rows: [row], as }))
    expectEqual(sim, 10_000)
    for (const at of [a, b, c]) expect(at.rows.rowsOf([`${FUTURE_KIND}/k`])).toEqual([row])
  })

  test('that issued a token and died: the token lets nobody in, another one does', () => {
    const sim = calm(2)
    const [a, b] = [node(sim, 0), node(sim, 1)]
    const { token } = sim.world.act(() => b.cluster.invitations.invite({}, 'ruiz'))
    sim.world.act(() => b.destroy())
    const joiner = sim.addNode()
    joiner.isRemoved = true
    expect(() => sim.world.wait(joiner.join(token, b))).toThrow(RefusalError)
    const again = sim.world.act(() => a.cluster.invitations.invite({}, 'ruiz'))
    sim.world.wait(joiner.join(again.token, a))
    joiner.isRemoved = false
    sim.world.act(() => joiner.start())
    expectEqual(sim, 10_000)
    expect(joiner.cluster.roster.members()).toHaveLength(3)
  })
})

describe('held mail', () => {
  test('released on both sides of a partition goes once, by its owner (K16)', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    const id = sim.world.act(() => a.run?.held.hold())
    if (id === undefined) throw new Error('nothing is held')
    expectEqual(sim, 2_000)
    sim.fabric.cut('split', around(a))
    sim.world.runFor(20_000)
    // There the owner is silent: the click waits for it, and is shown.
    sim.world.wait(
      b.run?.held.click(id, { kind: 'release', recipient: null, anyway: false }) ??
        Promise.resolve(null),
    )
    sim.world.runFor(2_000)
    expect(c.run?.held.quarantine.one(id)?.row.pending).toHaveLength(2)
    expect(b.memory.enqueued.size + c.memory.enqueued.size).toBe(0)
    sim.world.wait(
      a.run?.held.click(id, { kind: 'release', recipient: null, anyway: false }) ??
        Promise.resolve(null),
    )
    expect(a.memory.enqueued.size).toBe(2)
    sim.fabric.heal('split')
    expectEqual(sim, 10_000)
    sim.world.runFor(5_000)
    for (const at of [a, b, c]) {
      const entry = at.run?.held.quarantine.one(id)
      expect(entry?.copies.map(({ claim }) => claim?.kind)).toEqual(['release', 'release'])
      expect(entry?.row.pending).toEqual([])
    }
    expect([a, b, c].map(({ memory }) => memory.enqueued.size)).toEqual([2, 0, 0])
  })

  test('clicked by two at once: one release, and the second is told who was first', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    const id = sim.world.act(() => a.run?.held.hold())
    if (id === undefined) throw new Error('nothing is held')
    expectEqual(sim, 2_000)
    const clicks = [b, c].map((at) =>
      at.run?.held.click(id, { kind: 'release', recipient: null, anyway: false }),
    )
    const ended = sim.world.wait(Promise.allSettled(clicks))
    expect(ended.map(({ status }) => status).toSorted()).toEqual(['fulfilled', 'rejected'])
    const refused = ended.find((end) => end.status === 'rejected')
    expect(String(refused?.reason)).toContain('already released by ruiz')
    expect([a, b, c].map(({ memory }) => memory.enqueued.size)).toEqual([2, 0, 0])
  })

  test('a click that waited for its owner is carried out when it is back', () => {
    const sim = calm(2)
    const [a, b] = [node(sim, 0), node(sim, 1)]
    const id = sim.world.act(() => a.run?.held.hold())
    if (id === undefined) throw new Error('nothing is held')
    expectEqual(sim, 2_000)
    sim.world.act(() => a.crash(true))
    sim.world.runFor(20_000)
    sim.world.wait(
      b.run?.held.click(id, { kind: 'release', recipient: 'c@example.com', anyway: false }) ??
        Promise.resolve(null),
    )
    sim.world.act(() => a.start())
    expectEqual(sim, 90_000)
    sim.world.runFor(5_000)
    expect([...a.memory.enqueued.keys()]).toEqual([`${id} 1`])
    expect(b.run?.held.quarantine.one(id)?.copies.map(({ claim }) => claim?.kind)).toEqual([
      undefined,
      'release',
    ])
  })

  test('a click that was answered and forgotten while a node was away does not come back with it', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    const id = sim.world.act(() => a.run?.held.hold())
    if (id === undefined) throw new Error('nothing is held')
    expectEqual(sim, 2_000)
    sim.world.act(() => a.crash(true))
    sim.world.runFor(20_000)
    sim.world.wait(
      b.run?.held.click(id, { kind: 'release', recipient: 'c@example.com', anyway: false }) ??
        Promise.resolve(null),
    )
    sim.world.runFor(2_000)
    expect(c.run?.held.quarantine.one(id)?.row.pending).toHaveLength(1)
    sim.world.act(() => c.crash(true))
    sim.world.act(() => a.start())
    const isAnswered = (): boolean =>
      b.run?.held.quarantine.one(id)?.row.pending.length === 0 && a.memory.enqueued.size === 1
    expect(sim.world.runTill(isAnswered, 90_000)).toBe(true)
    for (const { time } of sim.nodes) time.skewMs += 30 * DAY_MS
    sim.world.runFor(180_000)
    sim.world.act(() => c.start())
    expectEqual(sim, 60_000)
    for (const at of [a, b, c]) {
      expect(at.run?.held.quarantine.one(id)?.row.pending).toEqual([])
      expect(at.cluster.sync.repairs).toBe(0)
    }
    sim.rest()
  })

  test('released by an owner whose disk then goes back leaves, when its peers have told it of that', () => {
    const sim = calm(2)
    const [a, b] = [node(sim, 0), node(sim, 1)]
    const before = a.snapshot()
    const id = sim.world.act(() => a.run?.held.hold())
    if (id === undefined) throw new Error('nothing is held')
    expectEqual(sim, 2_000)
    sim.world.act(() => {
      void a.run?.held.click(id, { kind: 'release', recipient: 'b@example.com', anyway: false })
    })
    const isKnown = (): boolean => b.run?.held.quarantine.one(id)?.copies[0]?.claim !== null
    expect(sim.world.runTill(isKnown, 1_000, 1)).toBe(true)
    expect(a.memory.enqueued.size).toBe(0)
    sim.world.act(() => a.crash(true))
    // Here its sealed files did not go back with it.
    a.restore({ ...before, bodies: a.bodies.image() })
    sim.world.act(() => a.start())
    expectEqual(sim, 90_000)
    sim.world.runFor(90_000)
    expect([...a.memory.enqueued.keys()]).toEqual([`${id} 0`])
    sim.rest()
  })

  test('that left before the disk of its owner went back stays, though the first peer does not know', () => {
    const sim = calm(3)
    const [a, b, c] = [node(sim, 0), node(sim, 1), node(sim, 2)]
    const before = a.snapshot()
    const id = sim.world.act(() => a.run?.held.hold())
    if (id === undefined) throw new Error('nothing is held')
    expectEqual(sim, 2_000)
    const firstAt = (at: SimNode) => at.run?.held.quarantine.one(id)?.copies[0]
    const isClaimed = (at: SimNode) => (firstAt(at)?.claim ?? null) !== null
    sim.world.act(() => {
      void a.run?.held.click(id, { kind: 'release', recipient: 'b@example.com', anyway: false })
    })
    expect(sim.world.runTill(() => isClaimed(b), 1_000, 1)).toBe(true)
    sim.fabric.cut('b', around(b))
    expect(sim.world.runTill(() => firstAt(c)?.enqueuedMs !== null, 1_000, 1)).toBe(true)
    expect(firstAt(b)?.enqueuedMs).toBe(null)
    sim.fabric.cut('c', around(c))
    sim.world.act(() => a.crash(true))
    a.restore(before)
    sim.world.act(() => a.start())
    sim.fabric.heal('b')
    expect(sim.world.runTill(() => isClaimed(a), 30_000)).toBe(true)
    sim.world.runFor(20_000)
    sim.fabric.heal('c')
    expectEqual(sim, 30_000)
    sim.world.runFor(90_000)
    expect(a.memory.enqueued.size).toBe(0)
    sim.rest()
  })
})

describe('the cost', () => {
  test('of a quiet cluster of ten is below 2 KB/s a node', () => {
    const sim = calm(10)
    sim.world.runFor(60_000)
    const sent = (): number[] =>
      sim.nodes.map(({ host }) => {
        const { udpOut, tcpOut: tcp } = sim.fabric.trafficOf(host)
        return udpOut + tcp
      })
    const before = sent()
    sim.world.runFor(120_000)
    const perSecond = sent().map((bytes, index) => (bytes - (before[index] ?? 0)) / 120)
    expect(Math.max(...perSecond)).toBeLessThan(2_000)
    process.stdout.write(`  ${Math.round(Math.max(...perSecond))} B/s a node\n`)
  }, 60_000)
})
