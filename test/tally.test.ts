/** Numbers that nodes tell each other: within a second, bounded, over when their time is. */
import { expect, test } from 'bun:test'
import { MESSAGE } from '../src/cluster/contract.ts'
import { type Teller, tellers } from './tellers.ts'

test('what one node says is heard by all within a second, added up over the others', () => {
  const { mesh, sides } = tellers(3)
  const [a, b, c] = sides.map(({ tally }) => tally.topic('connections'))
  a?.tell('192.0.2.1', 3, 60_000)
  b?.tell('192.0.2.1', 4, 60_000)
  mesh.run(1_100)
  expect([a, b, c].map((topic) => topic?.sum('192.0.2.1'))).toEqual([4, 3, 7])
  a?.tell('192.0.2.1', 5, 60_000)
  mesh.run(1_100)
  expect(c?.sum('192.0.2.1')).toBe(9)
  expect(c?.sum('192.0.2.2')).toBe(0)
  expect([a, c].map((topic) => topic?.least('192.0.2.1'))).toEqual([4, 4])
})

test('what was said is over at its time, by the clock of whoever heard it', () => {
  const { mesh, sides } = tellers(2)
  const [a, b] = sides.map(({ tally }) => tally.topic('t'))
  if (sides[1] !== undefined) sides[1].node.skewMs = 3_600_000
  a?.tell('k', 1, 10_000)
  mesh.run(1_100)
  expect(b?.restMs('k')).toBeGreaterThan(8_000)
  expect(b?.restMs('k')).toBeLessThanOrEqual(10_000)
  mesh.run(9_200)
  expect([b?.sum('k'), b?.restMs('k'), b?.least('k')]).toEqual([0, 0, null])
})

test('a flood of keys is one bounded message a second, and the largest are told', () => {
  const { mesh, sides } = tellers(2)
  const [a, b] = sides as [Teller, Teller]
  const [from, to] = [a.tally.topic('t'), b.tally.topic('t')]
  const before = a.node.sent.byType.get(MESSAGE.tally) ?? 0
  let messages = 0
  mesh.fate = (node, _, { type }) => {
    if (node === a.node.id && type === MESSAGE.tally) messages += 1
    return { delayMs: 0 }
  }
  for (let round = 0; round < 100; round++) {
    for (let at = 0; at < 1_000; at++) from.tell(`k${round} ${at}`, 1, 60_000)
    from.tell('loud', 100 + round, 60_000)
    mesh.run(100)
  }
  expect(messages).toBeLessThanOrEqual(11)
  expect((a.node.sent.byType.get(MESSAGE.tally) ?? 0) - before).toBeLessThan(11 * 20_000)
  mesh.run(1_100)
  expect(to.sum('loud')).toBe(199)
})

test('a node that comes later is told what is in force', () => {
  const { mesh, sides } = tellers(3)
  const [a, b] = sides as [Teller, Teller]
  mesh.unlink(a.node, b.node)
  mesh.run(100)
  a.tally.topic('t').tell('k', 7, 60_000)
  mesh.run(5_000)
  expect(b.tally.topic('t').sum('k')).toBe(0)
  mesh.join()
  mesh.run(1_100)
  expect(b.tally.topic('t').sum('k')).toBe(7)
})

test('who listens is told of what was heard; topics that nobody knows are passed over', () => {
  const { mesh, sides } = tellers(2)
  const [a, b] = sides as [Teller, Teller]
  const heard: string[] = []
  b.tally.topic('t').onHeard((key) => heard.push(key))
  a.tally.topic('t').tell('k', 1, 60_000)
  a.tally.topic('of a later version').tell('k', 1, 60_000)
  mesh.run(1_100)
  expect(heard).toEqual(['k'])
})

test('the living are the members in sight that work; what is drained is not missed', () => {
  const { mesh, sides, drains } = tellers(3)
  const [a, b, c] = sides as [Teller, Teller, Teller]
  expect([a.tally.living(), a.tally.share()]).toEqual([3, 1])
  expect(sides.map(({ tally }) => tally.place('mx example.com')).sort()).toEqual([0, 1, 2])
  mesh.unlink(a.node, c.node)
  mesh.run(100)
  expect([a.tally.living(), a.tally.share(), b.tally.living()]).toEqual([2, 2 / 3, 3])
  drains.set(c.node.id, 'drained')
  expect([a.tally.living(), a.tally.share()]).toEqual([2, 1])
})

test('a message that is none closes the link and is counted', () => {
  for (const text of [
    'no json',
    '[]',
    '{"t":[["k",-1,5]]}',
    '{"t":[["k",1,1e12]]}',
    '{"t":[[1,1,1]]}',
    '{"t":{}}',
    JSON.stringify(Object.fromEntries(Array.from({ length: 17 }, (_, at) => [`t${at}`, []]))),
  ]) {
    const { mesh, sides } = tellers(2)
    const [a, b] = sides as [Teller, Teller]
    const link = b.node.links.open.get(a.node.id)
    if (link === undefined) throw new Error('no link')
    b.node.links.deliver(link, { type: MESSAGE.tally, body: new TextEncoder().encode(text) })
    mesh.run(100)
    b.node.observer.flush()
    expect(b.node.count('sync.refused')).toBe(1)
    expect(b.node.links.open.size).toBe(0)
  }
})
