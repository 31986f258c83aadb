/** Who lives, as each node sees it, while the network and the nodes misbehave. By seed. */
import { describe, expect, setDefaultTimeout, test } from 'bun:test'
import { decodeLetter } from '../src/cluster/letter.ts'
import { DATAGRAM_BYTES_MAX } from '../src/cluster/network.ts'
import { deadMs } from '../src/cluster/peer.ts'
import { type Datagram, isWhole, MemberWorld, type TestNode } from './members-world.ts'

setDefaultTimeout(60_000)

const MINUTE_MS = 60_000
const SEEDS = [1, 2, 3, 4, 5, 6]
const WITH_LINKS = { hasLinks: true }
const WITHOUT_LINKS = { hasLinks: false }
const BOTH = [WITH_LINKS, WITHOUT_LINKS]

function settled(seed: number, count: number, options: { readonly hasLinks: boolean }) {
  const world = new MemberWorld(seed, count, options)
  world.run(30_000)
  world.forget()
  return world
}

/** Between these two, either way. */
function between(a: TestNode, b: TestNode) {
  return (from: string, to: string): boolean =>
    (from === a.name && to === b.name) || (from === b.name && to === a.name)
}

/** Seconds after `sinceMs` at which each other node first thought so of `node`. */
function judgedAfter(world: MemberWorld, node: TestNode, life: string, sinceMs: number): number[] {
  return world.nodes
    .filter((other) => other !== node)
    .map(({ judged }) => {
      const found = judged.find((one) => one.peer === node.name && one.life === life)
      return ((found?.atMs ?? Number.POSITIVE_INFINITY) - sinceMs) / 1_000
    })
}

describe('nodes that run', () => {
  test('find each other within two seconds, and links that go both ways are usable', () => {
    for (const seed of SEEDS) {
      const world = new MemberWorld(seed, 5, WITH_LINKS)
      expect(world.sim.runTill(() => isWhole(world), 2_000)).toBe(true)
      const areUsable = () =>
        world.nodes.every(({ table, node }) =>
          world.nodes.every((other) => other.node === node || table?.isUsable(other.node)),
        )
      expect(world.sim.runTill(areUsable, 5_000)).toBe(true)
      expect(world.node(0).table?.isUsable(world.node(0).node)).toBe(false)
    }
  })

  test('are never thought dead for an hour at 10 % loss, without links too', () => {
    for (const count of [3, 10]) {
      const world = new MemberWorld(count, count, WITHOUT_LINKS)
      world.loss = 0.1
      world.run(60 * MINUTE_MS)
      expect(world.judged('dead')).toBe(0)
      expect(isWhole(world)).toBe(true)
      expect(world.largest).toBeLessThanOrEqual(DATAGRAM_BYTES_MAX)
    }
  })

  test('cost at most 400 bytes a second each, whatever their number', () => {
    for (const count of [3, 10, 30]) {
      const world = new MemberWorld(1, count, WITH_LINKS)
      world.run(MINUTE_MS)
      world.forget()
      world.run(2 * MINUTE_MS)
      for (const { udpBytes } of world.nodes) expect(udpBytes / 120).toBeLessThanOrEqual(400)
      expect(world.tcpBytes).toBeLessThan(5_000)
    }
  })

  test('tell each other how they reach everybody else', () => {
    const world = settled(1, 4, WITH_LINKS)
    const [a, b, c, d] = world.nodes as [TestNode, TestNode, TestNode, TestNode]
    world.cut('b-c', 'udp', between(b, c))
    world.run(MINUTE_MS)
    const told = a.table?.linksOf(b.node)
    expect([...(told?.keys() ?? [])].sort()).toEqual([a.node, c.node, d.node].sort())
    expect(told?.get(c.node)).toMatchObject({ tcp: { works: true }, udp: { works: false } })
    expect(told?.get(d.node)).toMatchObject({ tcp: { works: true }, udp: { works: true } })
    expect(told?.get(d.node)?.udp.ms).toBeGreaterThan(1)
    expect(a.table?.linksOf(a.node)?.get(b.node)?.tcp.works).toBe(true)
    b.crash(true)
    world.run(MINUTE_MS)
    expect(a.table?.linksOf(b.node)).toBeNull()
  })
})

describe('a node that crashes', () => {
  test('is suspect after 5 to 8 s and dead after 15 to 19 s, at every other node', () => {
    for (const options of BOTH) {
      for (const count of [2, 3, 10]) {
        for (const seed of SEEDS) {
          const world = settled(seed, count, options)
          const gone = world.node(0)
          world.run(seed * 377)
          const atMs = world.sim.nowMs
          gone.crash(true)
          world.run(25_000)
          for (const after of judgedAfter(world, gone, 'suspect', atMs)) {
            expect(after).toBeWithin(5, 8)
          }
          for (const after of judgedAfter(world, gone, 'dead', atMs)) {
            expect(after).toBeWithin(15, 19)
          }
        }
      }
    }
  })

  test('is found at once again when it restarts, and nobody takes it for a double', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 3, WITHOUT_LINKS)
      world.node(0).crash()
      world.run(seed * 10_000)
      world.node(0).start()
      expect(world.sim.runTill(() => isWhole(world), 2_000)).toBe(true)
      world.run(2 * MINUTE_MS)
      for (const { observer } of world.nodes) {
        expect(observer?.count('members_doubled_total')).toBe(0)
      }
      expect(isWhole(world)).toBe(true)
    }
  })

  test('and says so, also to those who never missed it: they need not wait to dial it', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 3, WITHOUT_LINKS)
      world.node(0).crash()
      world.run(1_000)
      const others = world.nodes.slice(1)
      const heard = others.map(() => 0)
      for (const [index, { table }] of others.entries()) {
        table?.onChange(({ node, life }, before) => {
          if (node === world.node(0).node && life === 'alive' && before === 'alive')
            heard[index] = 1
        })
      }
      world.node(0).start()
      world.run(1_000)
      expect({ seed, heard }).toEqual({ seed, heard: [1, 1] })
    }
  })

  test('is asked for ever: after a day it is found within 5 s', () => {
    const world = settled(1, 2, WITHOUT_LINKS)
    world.cut('all', 'both', () => true)
    world.run(24 * 60 * MINUTE_MS)
    expect(world.node(0).lifeOf(world.node(1))).toBe('dead')
    world.forget()
    world.run(10 * MINUTE_MS)
    const perMinute = world.node(0).udpPackets / 10
    expect(perMinute).toBeWithin(13, 21)
    world.heal('all')
    expect(world.sim.runTill(() => isWhole(world), 5_000)).toBe(true)
  })

  test('costs the same in a large cluster: each of many dead is asked less often', () => {
    for (const chance of [0, 0.5, 1]) {
      const pauseMs = deadMs(2, chance)
      expect(pauseMs).toBeWithin(3_000, 4_501)
      expect([deadMs(32, chance), deadMs(320, chance)]).toEqual([pauseMs, 10 * pauseMs])
    }
  })

  test('is not kept alive by a packet that was overtaken', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 2, WITHOUT_LINKS)
      const [gone, other] = [world.node(0), world.node(1)]
      const held: Datagram[] = []
      world.tap = (datagram) => {
        if (datagram.from === gone.name) held.push(datagram)
      }
      world.cut('held', 'udp', (from) => from === gone.name)
      world.run(1_500)
      world.heal('held')
      world.tap = null
      world.run(10_000)
      world.forget()
      const atMs = world.sim.nowMs
      gone.crash(true)
      expect(held.length).toBeGreaterThan(0)
      for (const { bytes, to } of held) {
        world.run(4_000 / held.length)
        world.deliver(bytes, gone.name, to, 0)
      }
      world.run(20_000)
      expect(judgedAfter(world, gone, 'suspect', atMs)[0]).toBeWithin(5, 8)
      expect(other.lifeOf(gone)).toBe('dead')
    }
  })

  test('stays dead, whatever of it is replayed or was held back', () => {
    const world = settled(3, 3, WITHOUT_LINKS)
    const gone = world.node(0)
    const sent: Datagram[] = []
    const held: Datagram[] = []
    world.tap = (datagram) => {
      if (datagram.from === gone.name) sent.push(datagram)
    }
    world.run(MINUTE_MS)
    // The last ones that it sends, answers among them, do not arrive.
    world.cut('held', 'udp', (from) => from === gone.name)
    world.tap = (datagram) => {
      if (datagram.from === gone.name) held.push(datagram)
    }
    world.run(4_000)
    gone.crash(true)
    world.heal('held')
    world.run(30_000)
    world.forget()
    expect(sent.length).toBeGreaterThan(50)
    expect(held.length).toBeGreaterThan(2)
    for (const { bytes, to } of [...sent, ...held, ...held]) {
      world.deliver(bytes, gone.name, to, 5)
      world.run(20)
    }
    world.run(MINUTE_MS)
    for (const node of world.nodes.slice(1)) {
      expect(node.lifeOf(gone)).toBe('dead')
      expect(node.judged).toEqual([])
    }
  })
})

describe('a process that stands still', () => {
  test('for 6 s every 30 s is never thought dead, and thinks nobody dead', () => {
    for (const options of BOTH) {
      for (const count of [2, 3, 10]) {
        const world = settled(count, count, options)
        for (let turn = 0; turn < 20; turn += 1) {
          world.node(turn % count).stall(6_000)
          world.run(30_000)
        }
        expect(world.judged('dead')).toBe(0)
        expect(isWhole(world)).toBe(true)
      }
    }
  })

  test('for a minute wakes up and thinks nobody dead, and knows that it was itself (K17)', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 4, WITHOUT_LINKS)
      const slow = world.node(0)
      slow.stall(MINUTE_MS)
      world.run(MINUTE_MS + 100)
      expect(slow.observer?.count('stalls_total')).toBeWithin(1, 3)
      expect(world.sim.runTill(() => isWhole(world), MINUTE_MS)).toBe(true)
      expect(slow.judged.filter(({ life }) => life === 'dead')).toEqual([])
    }
  })

  test('while it suspects somebody reads first what came meanwhile', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 2, WITHOUT_LINKS)
      const [slow, other] = [world.node(0), world.node(1)]
      world.cut('a-b', 'udp', between(slow, other))
      expect(world.sim.runTill(() => slow.lifeOf(other) === 'suspect', 10_000)).toBe(true)
      world.heal('a-b')
      slow.stall(30_000)
      world.run(MINUTE_MS)
      expect(slow.judged.map(({ life }) => life)).toEqual(['suspect', 'alive'])
    }
  })

  test('again and again judges more slowly, until it is well again', () => {
    const world = settled(1, 3, WITHOUT_LINKS)
    const slow = world.node(0)
    let worst = 0
    for (let turn = 0; turn < 60; turn += 1) {
      slow.stall(1_200)
      for (let step = 0; step < 15; step += 1) {
        world.run(100)
        worst = Math.max(worst, slow.table?.health ?? 0)
      }
    }
    expect(worst).toBeGreaterThan(0)
    expect(worst).toBeLessThanOrEqual(7)
    world.run(MINUTE_MS)
    expect(slow.table?.health).toBe(0)
    expect(world.judged('dead')).toBe(0)
  })
})

describe('a partition', () => {
  test('of ten minutes heals within 5 s', () => {
    for (const options of BOTH) {
      for (const count of [2, 3, 10]) {
        for (const seed of count < 10 ? [1, 2] : [1]) {
          const world = settled(seed, count, options)
          const sides = new Map(world.nodes.map(({ name }, index) => [name, index % 2]))
          world.cut('wall', 'both', (from, to) => sides.get(from) !== sides.get(to))
          world.run(10 * MINUTE_MS)
          for (const [index, node] of world.nodes.entries()) {
            const lives = world.nodes.map((_, at) =>
              at === index ? null : at % 2 === index % 2 ? 'alive' : 'dead',
            )
            expect(world.nodes.map((other) => node.lifeOf(other))).toEqual(lives)
          }
          world.heal('wall')
          expect(world.sim.runTill(() => isWhole(world), 5_000)).toBe(true)
        }
      }
    }
  })

  test('that comes and goes every half second moves nobody for long, at bounded cost (K09)', () => {
    const world = settled(1, 3, WITH_LINKS)
    const [a, b] = [world.node(0), world.node(1)]
    for (let turn = 0; turn < 600; turn += 1) {
      world.cut('flap', 'both', between(a, b))
      world.run(500)
      world.heal('flap')
      world.run(500)
    }
    expect(world.judged('dead')).toBe(0)
    for (const { udpPackets } of world.nodes) expect(udpPackets / 600).toBeLessThan(8)
    world.run(10_000)
    expect(isWhole(world)).toBe(true)
  })

  test('with a bridge leaves all alive, and only the missing way unusable (K09)', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 3, WITH_LINKS)
      const [a, bridge, c] = world.nodes as [TestNode, TestNode, TestNode]
      world.cut('a-c', 'both', between(a, c))
      world.run(5 * MINUTE_MS)
      expect(world.judged('dead')).toBe(0)
      expect(isWhole(world)).toBe(true)
      expect([a.table?.isUsable(c.node), c.table?.isUsable(a.node)]).toEqual([false, false])
      expect([a.table?.isUsable(bridge.node), c.table?.isUsable(bridge.node)]).toEqual([true, true])
    }
  })

  test('into a chain: who can be reached from anywhere refutes and is not dead at its far end', () => {
    for (const seed of [1, 2, 3]) {
      const world = settled(seed, 4, WITHOUT_LINKS)
      const place = new Map(world.nodes.map(({ name }, index) => [name, index]))
      world.cut('chain', 'udp', (from, to) => {
        return Math.abs((place.get(from) ?? 0) - (place.get(to) ?? 0)) > 1
      })
      world.run(5 * MINUTE_MS)
      expect(world.judged('suspect')).toBeGreaterThan(0)
      expect(world.judged('dead')).toBe(0)
      // Who hears both sides knows better than who accuses.
      for (const node of world.nodes.slice(1, 3)) expect(node.judged).toEqual([])
    }
  })
})

describe('a way that goes only in one direction', () => {
  test('for datagrams is down at both ends, and both nodes live (K09)', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 3, WITH_LINKS)
      const [a, , c] = world.nodes as [TestNode, TestNode, TestNode]
      world.cut('a>c', 'udp', (from, to) => from === a.name && to === c.name)
      world.run(MINUTE_MS)
      expect(a.table?.get(c.node)).toMatchObject({ life: 'alive', udp: false, tcp: true })
      expect(c.table?.get(a.node)).toMatchObject({ life: 'alive', udp: false, tcp: true })
      world.heal('a>c')
      world.run(MINUTE_MS)
      expect(a.table?.get(c.node)).toMatchObject({ life: 'alive', udp: true, tcp: true })
      expect(world.judged('suspect')).toBe(0)
    }
  })

  test('for the link is unusable at both ends before the connection breaks (K09)', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 3, WITH_LINKS)
      const [a, , c] = world.nodes as [TestNode, TestNode, TestNode]
      // As whoever keeps what it read has it: a peer that says otherwise is a change.
      let usable = a.table?.isUsable(c.node)
      a.table?.onChange(() => {
        usable = a.table?.isUsable(c.node)
      })
      world.cut('a>c', 'tcp', (from, to) => from === a.name && to === c.name)
      world.run(20_000)
      expect(a.links?.open.has(c.node)).toBe(true)
      expect([a.table?.isUsable(c.node), c.table?.isUsable(a.node)]).toEqual([false, false])
      expect(usable).toBe(false)
      expect([a.lifeOf(c), c.lifeOf(a)]).toEqual(['alive', 'alive'])
      world.heal('a>c')
      world.run(20_000)
      expect([a.table?.isUsable(c.node), c.table?.isUsable(a.node)]).toEqual([true, true])
      expect(usable).toBe(true)
    }
  })
})

describe('a link that opens', () => {
  const areUsable = (a: TestNode, b: TestNode) => [
    a.table?.isUsable(b.node),
    b.table?.isUsable(a.node),
  ]

  test('is usable as soon as each end has said so on it, whatever was asked before', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 2, WITH_LINKS)
      const [a, b] = world.nodes as [TestNode, TestNode]
      b.crash()
      // A question of the other one is open meanwhile, and datagrams are lost.
      world.run(500)
      world.cut('udp', 'udp', () => true)
      b.start()
      world.run(50)
      expect({ seed, usable: areUsable(a, b) }).toEqual({ seed, usable: [true, true] })
    }
  })

  test('stays usable when datagrams from before it arrive, answers among them', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 2, WITH_LINKS)
      const [a, b] = world.nodes as [TestNode, TestNode]
      const held: Datagram[] = []
      world.tap = (datagram) => {
        if (datagram.from === b.name) held.push(datagram)
      }
      world.cut('held', 'udp', (from) => from === b.name)
      a.links?.open.get(b.node)?.close('reset')
      world.run(150)
      expect(held.length).toBeGreaterThan(1)
      world.connect()
      world.run(50)
      expect({ seed, usable: areUsable(a, b) }).toEqual({ seed, usable: [true, true] })
      let changes = 0
      a.table?.onChange(() => (changes += 1))
      for (const { bytes, from, to } of held) {
        world.deliver(bytes, from, to, 0)
        world.run(1)
        expect({ seed, usable: areUsable(a, b) }).toEqual({ seed, usable: [true, true] })
      }
      expect({ seed, changes }).toEqual({ seed, changes: 0 })
    }
  })

  test('and is lost at the other end is asked about as soon as that says so', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 2, WITH_LINKS)
      const [a, b] = world.nodes as [TestNode, TestNode]
      a.links?.open.get(b.node)?.close('reset')
      world.run(2_000)
      world.connect()
      // What was said on the one before is no word about this one.
      expect({ seed, usable: areUsable(a, b) }).toEqual({ seed, usable: [false, false] })
      world.run(2_000)
      expect(a.table?.isUsable(b.node)).toBe(true)
      let saidMs: number | null = null
      world.tap = ({ from, atMs }) => {
        if (from === b.name) saidMs ??= atMs
      }
      b.links?.open.delete(a.node)
      world.cut('tcp', 'tcp', () => true)
      expect(world.sim.runTill(() => saidMs !== null, 5_000, 1)).toBe(true)
      world.run(60)
      expect({ seed, usable: a.table?.isUsable(b.node) }).toEqual({ seed, usable: false })
    }
  })
})

describe('blocked datagrams', () => {
  test('leave everybody alive by the links, and each peer is reported once', () => {
    const world = new MemberWorld(1, 4, WITH_LINKS)
    world.cut('udp', 'udp', () => true)
    world.run(2_000)
    expect(isWhole(world)).toBe(true)
    world.forget()
    world.run(30 * MINUTE_MS)
    expect(world.judged('suspect')).toBe(0)
    for (const { observer, table } of world.nodes) {
      expect(observer?.count('members_muted_total')).toBe(3)
      for (const { udp, tcp } of table?.all() ?? []) expect([udp, tcp]).toEqual([false, true])
    }
  })

  test('and links that nothing else uses are enough', () => {
    for (const count of [2, 4]) {
      const world = new MemberWorld(3, count, WITH_LINKS)
      world.hasBeats = false
      world.cut('udp', 'udp', () => true)
      world.run(MINUTE_MS)
      world.forget()
      for (let turn = 0; turn < 100; turn += 1) {
        world.run(3_000)
        for (const { table, node } of world.nodes) {
          for (const other of world.nodes) {
            if (other.node !== node) expect(table?.isUsable(other.node)).toBe(true)
          }
        }
      }
      expect(world.judged('suspect')).toBe(0)
      expect(world.tcpBytes / 300 / count).toBeLessThan(400)
    }
  })

  test('do not hide a crash', () => {
    const world = new MemberWorld(2, 4, WITH_LINKS)
    world.cut('udp', 'udp', () => true)
    world.run(MINUTE_MS)
    const atMs = world.sim.nowMs
    world.forget()
    world.node(0).crash(true)
    world.run(25_000)
    for (const after of judgedAfter(world, world.node(0), 'dead', atMs)) {
      expect(after).toBeWithin(15, 20)
    }
  })
})

describe('what the wire does to packets', () => {
  test('doubled, reordered and ten minutes late, they change nothing (K10)', () => {
    const world = settled(1, 3, WITHOUT_LINKS)
    world.duplicate = 0.3
    world.delayMs = () => {
      if (world.dice.chance(0.02)) return 10 * MINUTE_MS
      return world.dice.chance(0.3) ? world.dice.between(0, 100) : 0
    }
    world.run(60 * MINUTE_MS)
    expect(world.judged('dead')).toBe(0)
    expect(world.judged('suspect')).toBe(0)
    expect(isWhole(world)).toBe(true)
  })

  test('100,000 forged ones are neither answered nor the end of anything', () => {
    const world = settled(1, 3, WITHOUT_LINKS)
    const [a, b] = [world.node(0), world.node(1)]
    const caught: Uint8Array[] = []
    world.tap = ({ bytes, to }) => {
      if (to === a.name) caught.push(bytes)
    }
    world.run(30_000)
    world.tap = null
    const { dice } = world
    for (let count = 0; count < 100_000; count += 1) {
      const bytes = dice.chance(0.2)
        ? dice.bytes(dice.below(DATAGRAM_BYTES_MAX + 50))
        : Uint8Array.from(dice.pick(caught))
      if (bytes.length > 0) {
        const flips = 1 + dice.below(4)
        for (let flip = 0; flip < flips; flip += 1) {
          bytes[dice.below(bytes.length)] = dice.below(256)
        }
      }
      const before = a.udpPackets
      a.receive?.(bytes.subarray(0, bytes.length - dice.below(3)), { host: b.name, port: 8_025 })
      expect(a.udpPackets).toBe(before)
      if (count % 100 === 99) world.run(600)
    }
    expect(a.dropped()).toBeGreaterThan(99_000)
    expect(a.observer?.metrics()).not.toContain('packets_dropped_total{why="flood"}')
    expect(world.judged('suspect')).toBe(0)
    expect(isWhole(world)).toBe(true)
  })

  test('those of before a restart are not answered, wherever they are sent again from (K01)', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 3, WITHOUT_LINKS)
      const heard: Datagram[] = []
      world.tap = (datagram) => heard.push(datagram)
      world.run(30_000)
      world.node(1).crash()
      world.node(1).start()
      world.run(5_000)
      let answers = 0
      world.tap = ({ to }) => {
        if (to === 'thief') answers += 1
      }
      world.forget()
      for (const { bytes, to } of heard) {
        world.deliver(bytes, 'thief', to, 5)
        world.run(20)
      }
      world.run(10_000)
      expect(heard.length).toBeGreaterThan(100)
      expect(answers).toBe(0)
      expect(world.judged('suspect')).toBe(0)
    }
  })

  test('a first contact of before is answered once, and makes nobody alive (K01)', () => {
    const world = new MemberWorld(1, 2, WITHOUT_LINKS)
    const [gone, other] = [world.node(0), world.node(1)]
    const heard: Datagram[] = []
    world.tap = (datagram) => {
      if (datagram.from === gone.name && heard.length < 3) heard.push(datagram)
    }
    world.run(10_000)
    gone.crash(true)
    other.crash(true)
    other.start()
    world.forget()
    const sentTo: string[] = []
    world.tap = ({ to }) => sentTo.push(to)
    for (const { bytes } of [...heard, ...heard, ...heard]) {
      world.deliver(bytes, 'thief', other.name, 5)
      world.run(500)
    }
    expect(sentTo.filter((to) => to === 'thief').length).toBeWithin(1, heard.length + 1)
    world.run(MINUTE_MS)
    expect(other.judged.map(({ life }) => life)).toEqual(['dead'])
    sentTo.length = 0
    gone.start()
    expect(world.sim.runTill(() => isWhole(world), 2_000)).toBe(true)
    expect(sentTo).not.toContain('thief')
  })

  test('a letter of random bytes is read or refused, never more', () => {
    const { dice } = new MemberWorld(1, 1, WITHOUT_LINKS)
    let read = 0
    for (let count = 0; count < 100_000; count += 1) {
      const bytes = dice.bytes(dice.below(80))
      // Mostly items of a known kind and a length that may fit.
      for (let at = 7; at + 1 < bytes.length; at += 2 + (bytes[at + 1] ?? 0)) {
        if (dice.chance(0.9)) bytes[at] = dice.below(9)
        if (dice.chance(0.9)) bytes[at + 1] = dice.below(20)
      }
      if (decodeLetter(bytes) !== null) read += 1
    }
    expect(read).toBeGreaterThan(1_000)
  })

  test('a link that carries something else is closed', () => {
    const world = settled(1, 2, WITH_LINKS)
    const [a, b] = [world.node(0), world.node(1)]
    a.links?.get(b.node)?.send(3, Uint8Array.of(1, 2, 3))
    world.run(1_000)
    expect(b.links?.get(a.node)).toBeNull()
    world.run(10_000)
    expect(isWhole(world)).toBe(true)
  })
})

describe('a node that was removed', () => {
  test('is not spoken with from that moment, whatever it sends', () => {
    const world = settled(1, 3, WITH_LINKS)
    const gone = world.node(0)
    gone.isUninformed = true
    world.setStanding(gone, 'evicted')
    const sentTo: string[] = []
    world.tap = ({ to }) => sentTo.push(to)
    const before = world.nodes.map((node) => node.dropped())
    world.run(MINUTE_MS)
    for (const node of world.nodes.slice(1)) {
      expect(node.table?.get(gone.node)).toBeNull()
      expect(node.table?.isUsable(gone.node)).toBe(false)
      expect(node.dropped()).toBeGreaterThan(before[world.nodes.indexOf(node)] ?? 0)
    }
    expect(sentTo.filter((to) => to === gone.name)).toEqual([])
    expect(world.node(1).lifeOf(world.node(2))).toBe('alive')
  })

  test('and knows it speaks with nobody', () => {
    const world = settled(1, 3, WITHOUT_LINKS)
    world.setStanding(world.node(0), 'left')
    world.forget()
    world.run(MINUTE_MS)
    expect(world.node(0).udpPackets).toBe(0)
    expect(world.node(0).table?.all()).toEqual([])
  })
})

describe('two machines as one node', () => {
  test('are noticed by the others, and one of them is believed (K13)', () => {
    for (const seed of SEEDS) {
      const world = settled(seed, 3, WITHOUT_LINKS)
      world.clone(world.node(0))
      world.run(2 * MINUTE_MS)
      const doubled = world.nodes.slice(1, 3).map(({ observer }) => {
        return observer?.count('members_doubled_total') ?? 0
      })
      expect(Math.min(...doubled)).toBeGreaterThan(0)
      expect(Math.max(...doubled)).toBeLessThan(10)
      expect(world.node(1).lifeOf(world.node(0))).toBe('alive')
    }
  })

  test('are not one node restored from an old snapshot: it is believed when it answers', () => {
    for (const [index, seed] of SEEDS.entries()) {
      const world = settled(seed, 3, WITHOUT_LINKS)
      const restored = world.node(0)
      for (let start = 0; start < 5; start += 1) {
        restored.crash()
        restored.start()
        world.run(5_000)
      }
      restored.crash()
      world.forget()
      world.run(2_000 * index)
      restored.start(2)
      expect(world.sim.runTill(() => isWhole(world), 20_000)).toBe(true)
      world.run(MINUTE_MS)
      expect([isWhole(world), world.judged('dead')]).toEqual([true, 0])
      for (const { observer } of world.nodes) {
        expect(observer?.count('members_doubled_total')).toBe(0)
      }
    }
  })
})

test('the same seed gives the same run', () => {
  const run = () => {
    const world = new MemberWorld(9, 5, WITH_LINKS)
    world.loss = 0.2
    world.run(20_000)
    world.node(1).crash()
    world.run(MINUTE_MS)
    return `${world.sim.hash} ${JSON.stringify(world.nodes.map(({ judged }) => judged))}`
  }
  expect(run()).toBe(run())
})
