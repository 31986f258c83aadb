/** Networks that guess recipients are refused on all nodes, and nobody else is. */
import { expect, test } from 'bun:test'
import fc from 'fast-check'
import { initialSettings } from '../src/config/schema.ts'
import { Bans } from '../src/mail/accept/bans.ts'
import type { MeshNode } from './mesh.ts'
import { type Tellers, tellers } from './tellers.ts'

const IP = '192.0.2.1'
const settings = { ...initialSettings(), 'connection.failures': 35, 'connection.ban': 60 }
const MINUTE_MS = 60_000

function bansOf({ sides }: Tellers): readonly Bans[] {
  return sides.map(
    ({ node, tally }) =>
      new Bans({ clock: node, observer: node.observer, tally, rows: node.replica }),
  )
}

function attack(bans: Bans, times: number, ip = IP, rules = settings): boolean {
  let isOver = false
  for (let at = 0; at < times; at++) isOver = bans.failed(ip, rules)
  return isOver
}

test('an attack on A is refused on B and C within two seconds, for as long as the setting says', () => {
  const world = tellers(3)
  const [a, b, c] = bansOf(world) as [Bans, Bans, Bans]
  expect(attack(a, 34)).toBe(false)
  expect(a.isBanned(IP)).toBe(false)
  expect(attack(a, 1)).toBe(true)
  expect(a.isBanned(IP)).toBe(true)
  world.mesh.run(2_000)
  for (const bans of [b, c]) {
    expect(bans.isBanned(IP)).toBe(true)
    expect(bans.isBanned('192.0.2.2')).toBe(false)
    expect(bans.list()).toHaveLength(1)
  }
  world.mesh.run(58 * MINUTE_MS)
  expect(b.isBanned(IP)).toBe(true)
  world.mesh.run(3 * MINUTE_MS)
  for (const bans of [a, b, c]) {
    expect(bans.isBanned(IP)).toBe(false)
    expect(bans.list()).toEqual([])
  }
})

test('an attack that is spread over the nodes counts as one', () => {
  const world = tellers(3)
  const [a, b, c] = bansOf(world) as [Bans, Bans, Bans]
  expect(attack(a, 12)).toBe(false)
  expect(attack(b, 12)).toBe(false)
  world.mesh.run(2_000)
  expect(attack(c, 11)).toBe(true)
  world.mesh.run(2_000)
  expect(a.isBanned(IP)).toBe(true)
})

test('unknown recipients of more than an hour ago count no more; 0 is never', () => {
  const world = tellers(1)
  const [a] = bansOf(world) as [Bans]
  attack(a, 34)
  world.mesh.run(61 * MINUTE_MS)
  expect(attack(a, 34)).toBe(false)
  expect(attack(a, 1_000, '192.0.2.9', { ...settings, 'connection.failures': 0 })).toBe(false)
})

test('all addresses of an IPv6 /64 are one network', () => {
  const world = tellers(1)
  const [a] = bansOf(world) as [Bans]
  for (let at = 0; at < 35; at++) a.failed(`2001:db8::${at.toString(16)}`, settings)
  expect(a.isBanned('2001:db8::ffff')).toBe(true)
  expect(a.isBanned('2001:db8:1::1')).toBe(false)
})

test('lifted on one node it is lifted on all, and its count begins anew', () => {
  const world = tellers(3)
  const [a, b, c] = bansOf(world) as [Bans, Bans, Bans]
  attack(a, 35)
  world.mesh.run(2_000)
  expect(b.lift('ann', '192.0.2.1')).toBe(true)
  expect(b.lift('ann', '192.0.2.1')).toBe(false)
  world.mesh.run(4_000)
  for (const bans of [a, b, c]) expect(bans.isBanned(IP)).toBe(false)
  expect(attack(a, 34)).toBe(false)
  expect(attack(a, 1)).toBe(true)
  world.mesh.run(2_000)
  expect(c.isBanned(IP)).toBe(true)
})

test('a node that was told of a ban tells the ones that it meets later', () => {
  const world = tellers(3)
  const [a, b, c] = world.sides.map(({ node }) => node) as [MeshNode, MeshNode, MeshNode]
  const [first, , third] = bansOf(world) as [Bans, Bans, Bans]
  world.mesh.unlink(b, c)
  world.mesh.unlink(a, c)
  attack(first, 35)
  world.mesh.run(2_000)
  world.mesh.unlink(a, b)
  world.mesh.link(b, c)
  world.mesh.run(2_000)
  expect(third.isBanned(IP)).toBe(true)
})

test('a ban of days outlives the node that made it, and a node that comes later hears of it', () => {
  const world = tellers(3)
  const [a, b, c] = world.sides as [
    Tellers['sides'][number],
    Tellers['sides'][number],
    Tellers['sides'][number],
  ]
  const [first, second, third] = bansOf(world) as [Bans, Bans, Bans]
  const days = { ...settings, 'connection.ban': 3 * 24 * 60 }
  world.mesh.unlink(b.node, c.node)
  world.mesh.unlink(a.node, c.node)
  attack(first, 35, IP, days)
  for (let hour = 0; hour < 4; hour++) {
    world.mesh.run(60 * MINUTE_MS)
    expect(second.isBanned(IP)).toBe(true)
  }
  world.mesh.unlink(a.node, b.node)
  world.mesh.link(b.node, c.node)
  world.mesh.run(3_000)
  expect(third.isBanned(IP)).toBe(true)
  const [ban] = third.list()
  expect(ban?.leftMs).toBeLessThan(68.5 * 60 * MINUTE_MS)
  expect(ban?.leftMs).toBeGreaterThan(67 * 60 * MINUTE_MS)
})

test('lifted while another node is cut off, it stays lifted when that one is back, and after a restart', () => {
  const world = tellers(3)
  const [a, b, c] = bansOf(world) as [Bans, Bans, Bans]
  const [nodeA, nodeB, nodeC] = world.sides.map(({ node }) => node) as [
    MeshNode,
    MeshNode,
    MeshNode,
  ]
  attack(a, 35, IP, { ...settings, 'connection.ban': 600 })
  world.mesh.run(2_000)
  world.mesh.join([nodeA], [nodeB, nodeC])
  expect(a.lift('ann', '192.0.2.1')).toBe(true)
  world.mesh.run(90 * MINUTE_MS)
  expect([a, b, c].map((bans) => bans.isBanned(IP))).toEqual([false, true, true])
  world.mesh.join()
  world.mesh.run(10_000)
  expect([a, b, c].map((bans) => bans.isBanned(IP))).toEqual([false, false, false])
  // One that forgot everything but its rows hears it from somebody who knows no better.
  const { tally } = world.sides[0] as Tellers['sides'][number]
  const anew = new Bans({ clock: nodeA, observer: nodeA.observer, tally, rows: nodeA.replica })
  world.sides[1]?.tally.topic('banned').tell(`${IP} 1`, 3_000, 3_000_000)
  world.mesh.run(10_000)
  expect(anew.isBanned(IP)).toBe(false)
})

test('lifted while another node is cut off, what that one counted before counts no more, and what it counts later does', () => {
  const world = tellers(2)
  const [a, b] = bansOf(world) as [Bans, Bans]
  const [nodeA, nodeB] = world.sides.map(({ node }) => node) as [MeshNode, MeshNode]
  attack(b, 30)
  world.mesh.run(2_000)
  expect(attack(a, 5)).toBe(true)
  world.mesh.run(2_000)
  world.mesh.unlink(nodeA, nodeB)
  expect(a.lift('ann', IP)).toBe(true)
  expect(attack(a, 20)).toBe(false)
  world.mesh.join()
  world.mesh.run(10_000)
  expect(attack(b, 14)).toBe(false)
  world.mesh.run(2_000)
  expect(attack(a, 1)).toBe(true)
})

test('clocks that differ change nothing: a lift is later than its ban, a new ban later than the lift', () => {
  const world = tellers(2)
  const [a, b] = bansOf(world) as [Bans, Bans]
  const [nodeA, nodeB] = world.sides.map(({ node }) => node) as [MeshNode, MeshNode]
  nodeA.skewMs = -40_000
  attack(b, 35)
  world.mesh.run(2_000)
  expect(a.lift('ann', IP)).toBe(true)
  world.mesh.run(2_000)
  expect([a, b].map((bans) => bans.isBanned(IP))).toEqual([false, false])
  nodeA.skewMs = 0
  nodeB.skewMs = -40_000
  attack(a, 35)
  world.mesh.run(2_000)
  expect(a.lift('ann', IP)).toBe(true)
  world.mesh.run(2_000)
  attack(b, 35)
  world.mesh.run(2_000)
  expect([a, b].map((bans) => bans.isBanned(IP))).toEqual([true, true])
})

test('a ban that was over is not heard again when a link opens anew', () => {
  const world = tellers(2)
  const [a, b] = bansOf(world) as [Bans, Bans]
  attack(a, 35)
  world.mesh.run(2_000)
  world.mesh.run(61 * MINUTE_MS)
  const [one, other] = world.sides.map(({ node }) => node) as [MeshNode, MeshNode]
  expect([a, b].map((bans) => bans.isBanned(IP))).toEqual([false, false])
  world.mesh.unlink(one, other)
  world.mesh.run(1_000)
  world.mesh.link(one, other)
  world.mesh.run(5_000)
  expect([a, b].map((bans) => bans.isBanned(IP))).toEqual([false, false])
})

test('whoever is cut off from whom: refused is in the end what somebody banned after the last lift', () => {
  const step = fc.record({
    at: fc.nat(2),
    ip: fc.constantFrom('192.0.2.1', '192.0.2.2'),
    what: fc.constantFrom('attack', 'lift', 'join', 'part'),
    secs: fc.integer({ min: 1, max: 5 }),
  })
  fc.assert(
    fc.property(fc.array(step, { minLength: 4, maxLength: 25 }), (steps) => {
      const world = tellers(3)
      const all = bansOf(world)
      const { nodes } = world.mesh
      /** By network, when somebody banned it or lifted that last. */
      const [banned, lifted] = [new Map<string, number>(), new Map<string, number>()]
      for (const [time, { at, ip, what, secs }] of steps.entries()) {
        const [bans, node] = [all[at], nodes[at]] as [Bans, MeshNode]
        if (what === 'join') world.mesh.join()
        else if (what === 'part')
          world.mesh.join(
            [node],
            nodes.filter((one) => one !== node),
          )
        else if (what === 'lift') {
          if (bans.lift('ann', ip)) lifted.set(ip, time)
        } else if (!bans.isBanned(ip)) {
          attack(bans, 35, ip)
          banned.set(ip, time)
        }
        world.mesh.run(secs * 1_000)
      }
      world.mesh.join()
      world.mesh.run(10_000)
      for (const ip of ['192.0.2.1', '192.0.2.2']) {
        const isBanned = (banned.get(ip) ?? -1) > (lifted.get(ip) ?? -1)
        expect(all.map((bans) => bans.isBanned(ip))).toEqual(all.map(() => isBanned))
      }
    }),
    { numRuns: 150, seed: 5 },
  )
})
