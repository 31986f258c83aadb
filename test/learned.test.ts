/** What was learnt on several nodes: the same everywhere, exactly, and forgotten without a trace. */
import { afterEach, expect, test } from 'bun:test'
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SeededRandom } from '../src/base/random.ts'
import { domainOf, LearntModel } from '../src/mail/inspect/model.ts'
import { type Label, type Sample, SIGNATURE_BYTES } from '../src/message/learned.ts'
import { StoreDatabase } from '../src/store/db.ts'
import { Learned, SAMPLE_KIND } from '../src/store/learned.ts'
import type { Learnt } from '../src/store/learned-table.ts'
import { Mesh, type MeshNode } from './mesh.ts'

const DAY_MS = 86_400_000
const scratch = mkdtempSync(join(tmpdir(), 'postern-learned-'))
const open: Learned[] = []
let directories = 0

afterEach(() => {
  for (const learned of open.splice(0)) learned.close()
  rmSync(scratch, { recursive: true, force: true })
})

type Side = { readonly node: MeshNode; readonly learned: Learned; readonly directory: string }

function freshDirectory(): string {
  directories += 1
  return join(scratch, String(directories))
}

function learnedOn(node: MeshNode, directory = freshDirectory()): Side {
  const store = new StoreDatabase(node.sqlite, 'state.db', node.observer)
  const learned = new Learned(store, node.replica, {
    clock: node,
    observer: node.observer,
    directory,
  })
  learned.start()
  open.push(learned)
  return { node, learned, directory }
}

function world(count: number, seed = 1) {
  const mesh = new Mesh({ seed })
  mesh.add(count)
  const sides = mesh.nodes.map((node) => learnedOn(node))
  mesh.join()
  mesh.run(5_000)
  const [a, b, c] = sides as [Side, Side, Side]
  return { mesh, a, b, c, sides }
}

/** A message with words of its own and words that many have. */
function learnt(index: number, label: Label, domain: string | null = null): Learnt {
  const random = new SeededRandom(1_000 + index)
  const tokens = new Set<number>()
  for (let own = 0; own < 80; own += 1) tokens.add(1 + random.below(0xffff_fffe))
  for (let common = 0; common < 20; common += 1) tokens.add(7 + random.below(100))
  return {
    label,
    domain,
    sample: {
      fingerprint: random.bytes(16).toHex(),
      tokens: Uint32Array.from(tokens).sort(),
      signature: random.bytes(SIGNATURE_BYTES),
      subject: `Mail ${index}`,
    },
  }
}

function modelOf({ learned }: Side): LearntModel {
  const bytes = readFileSync(learned.path ?? '')
  return new LearntModel(bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.length))
}

test('200 spam on one side of a cut and 200 ham on the other are 200 and 200 everywhere, and equal', () => {
  const { mesh, a, b, c, sides } = world(3)
  mesh.join([a.node], [b.node, c.node])
  for (let index = 0; index < 200; index += 1) {
    a.learned.learn('ruiz', learnt(index, 'spam', index % 2 === 0 ? 'example.com' : null))
    b.learned.learn('okafor', learnt(1_000 + index, 'ham', 'example.com'))
  }
  mesh.run(5_000)
  expect(a.learned.counts()).toEqual({ spam: 200, ham: 0 })
  expect(c.learned.counts()).toEqual({ spam: 0, ham: 200 })
  mesh.join()
  mesh.run(20_000)
  for (const side of sides) {
    expect(side.learned.counts()).toEqual({ spam: 200, ham: 200 })
    const model = modelOf(side)
    expect(model.samples(null)).toEqual({ spam: 200, ham: 200 })
    expect(model.samples('Example.COM')).toEqual({ spam: 100, ham: 200 })
    expect(side.learned.dump()).toBe(a.learned.dump())
  }
})

test('what one node learns counts on the others in 5 s', () => {
  const { mesh, a, b } = world(2)
  const one = learnt(1, 'spam', 'example.com')
  a.learned.learn('ruiz', one)
  expect(modelOf(a).count(one.sample.tokens[0] ?? 0, null)).toEqual({ spam: 1, ham: 0 })
  mesh.run(5_000)
  for (const token of one.sample.tokens) {
    expect(modelOf(b).count(token, null)).toEqual({ spam: 1, ham: 0 })
    expect(modelOf(b).count(token, domainOf('example.com'))).toEqual({ spam: 1, ham: 0 })
    expect(modelOf(b).count(token, domainOf('example.org'))).toEqual({ spam: 0, ham: 0 })
  }
  const [same] = modelOf(b).alike(one.sample.signature ?? new Uint8Array())
  expect(same).toMatchObject({ label: 'spam', part: 1, name: 'Mail 1' })
})

test('forgetting leaves the counts of before, to the byte, on every node', () => {
  const { mesh, a, b } = world(2)
  for (let index = 0; index < 50; index += 1)
    a.learned.learn('ruiz', learnt(index, index % 2 === 0 ? 'spam' : 'ham', 'example.com'))
  mesh.run(5_000)
  const before = a.learned.dump()
  expect(b.learned.dump()).toBe(before)
  const more = Array.from({ length: 20 }, (_, index) => learnt(500 + index, 'spam', 'example.com'))
  for (const one of more) a.learned.learn('ruiz', one)
  mesh.run(5_000)
  expect(b.learned.dump()).not.toBe(before)
  for (const { sample } of more) expect(b.learned.forget('okafor', sample.fingerprint)).toBe(true)
  expect(b.learned.dump()).toBe(before)
  mesh.run(5_000)
  expect(a.learned.dump()).toBe(before)
  expect(a.learned.forget('ruiz', more[0]?.sample.fingerprint ?? '')).toBe(false)
})

test('the last label of a message is the one that counts, and the same twice counts once', () => {
  const { mesh, a, b } = world(2)
  const other = learnt(2, 'ham')
  a.learned.learn('ruiz', other)
  mesh.run(5_000)
  const before = a.learned.dump()
  const one = learnt(1, 'spam')
  expect(a.learned.learn('ruiz', one)).toBe(true)
  expect(a.learned.learn('ruiz', one)).toBe(false)
  mesh.run(5_000)
  expect(b.learned.learn('okafor', { ...one, label: 'ham' })).toBe(true)
  mesh.run(5_000)
  expect(a.learned.labelOf(one.sample.fingerprint)).toBe('ham')
  expect(modelOf(a).samples(null)).toEqual({ spam: 0, ham: 2 })
  expect(a.learned.dump()).toBe(b.learned.dump())
  a.learned.forget('ruiz', one.sample.fingerprint)
  expect(a.learned.dump()).toBe(before)
})

test('two labels that did not see each other: every node counts the later one', () => {
  const { mesh, a, b, c, sides } = world(3)
  mesh.join([a.node], [b.node, c.node])
  const one = learnt(1, 'spam')
  a.learned.learn('ruiz', one)
  mesh.run(100)
  b.learned.learn('okafor', { ...one, label: 'ham' })
  mesh.join()
  mesh.run(10_000)
  for (const { learned } of sides) {
    expect(learned.labelOf(one.sample.fingerprint)).toBe('ham')
    expect(learned.counts()).toEqual({ spam: 0, ham: 1 })
    expect(learned.dump()).toBe(a.learned.dump())
  }
})

test('a transaction that fails counts nothing, and what follows it counts right', () => {
  const { a } = world(1)
  const one = learnt(1, 'spam')
  a.learned.learn('ruiz', learnt(2, 'ham'))
  const before = a.learned.dump()
  expect(() =>
    a.node.replica.transact(() => {
      a.learned.learn('ruiz', one)
      throw new Error('no')
    }),
  ).toThrow('no')
  expect(a.learned.dump()).toBe(before)
  a.learned.learn('ruiz', { ...one, label: 'ham' })
  expect(modelOf(a).samples(null)).toEqual({ spam: 0, ham: 2 })
  a.learned.forget('ruiz', one.sample.fingerprint)
  expect(a.learned.dump()).toBe(before)
})

test('a message that is learnt twice in one transaction counts as it was last', () => {
  const { a } = world(1)
  const one = learnt(1, 'spam')
  a.learned.learn('ruiz', learnt(2, 'ham'))
  const before = a.learned.dump()
  a.node.replica.transact(() => {
    a.learned.learn('ruiz', one)
    a.learned.learn('ruiz', { ...one, label: 'ham' })
  })
  expect(modelOf(a).samples(null)).toEqual({ spam: 0, ham: 2 })
  a.node.replica.transact(() => {
    a.learned.learn('ruiz', one)
    a.learned.forget('ruiz', one.sample.fingerprint)
  })
  expect(a.learned.dump()).toBe(before)
})

test('a start counts anew what is there, in slices, also what changes meanwhile', () => {
  const { mesh, a } = world(1)
  for (let index = 0; index < 230; index += 1) a.learned.learn('ruiz', learnt(index, 'spam'))
  const former = a.learned.path
  const again = restarted(a, a.directory)
  expect(again.learned.isCounted).toBe(false)
  // Until it has counted, the file of before serves.
  expect(again.learned.path).toBe(former)
  again.learned.learn('ruiz', learnt(1_000, 'ham'))
  again.learned.forget('ruiz', learnt(3, 'spam').sample.fingerprint)
  again.learned.forget('ruiz', learnt(200, 'spam').sample.fingerprint)
  mesh.run(1_000)
  expect(again.learned.isCounted).toBe(true)
  expect(again.learned.path).not.toBe(former)
  expect(modelOf(again).samples(null)).toEqual({ spam: 228, ham: 1 })
  // Who still reads the former file has a minute to change.
  mesh.run(60_000)
  expect(readdirSync(a.directory)).toHaveLength(1)
  const fresh = restarted(again)
  mesh.run(1_000)
  expect(fresh.learned.dump()).toBe(again.learned.dump())
})

function restarted({ node, learned }: Side, directory?: string): Side {
  learned.close()
  node.crash()
  node.start()
  return learnedOn(node, directory)
}

test('a table that is full goes on in a larger file, and counts as before', () => {
  const { a } = world(1)
  const many = Array.from({ length: 30 }, (_, index) => learntMuch(index))
  for (const one of many.slice(0, 5)) a.learned.learn('ruiz', one)
  const small = a.learned.path
  const before = a.learned.dump()
  for (const one of many.slice(5)) a.learned.learn('ruiz', one)
  expect(a.learned.path).not.toBe(small)
  const model = modelOf(a)
  for (const { sample } of many) {
    for (const token of sample.tokens) expect(model.count(token, null).ham).toBeGreaterThan(0)
  }
  for (const { sample } of many.slice(5)) a.learned.forget('ruiz', sample.fingerprint)
  expect(a.learned.dump()).toBe(before)
})

function learntMuch(index: number): Learnt {
  const random = new SeededRandom(index)
  const one = learnt(index, 'ham')
  const tokens = new Set<number>()
  while (tokens.size < 2_000) tokens.add(1 + random.below(0xffff_fffe))
  const sample: Sample = { ...one.sample, tokens: Uint32Array.from(tokens).sort() }
  return { ...one, sample }
}

test('a campaign is over after 90 days, a sample is forgotten after 180, on all nodes', () => {
  const { mesh, a, b } = world(2)
  const old = learnt(1, 'spam')
  a.learned.learn('ruiz', old)
  mesh.run(5_000)
  const later = (ms: number): void => {
    for (const { node } of [a, b]) node.skewMs += ms
    mesh.run(3_700_000)
  }
  later(89 * DAY_MS)
  expect(modelOf(b).alike(old.sample.signature ?? new Uint8Array())).toHaveLength(1)
  later(DAY_MS)
  for (const side of [a, b]) {
    expect(modelOf(side).alike(old.sample.signature ?? new Uint8Array())).toEqual([])
    expect(modelOf(side).samples(null)).toEqual({ spam: 1, ham: 0 })
  }
  // Also for a node that starts later.
  const again = restarted(b)
  mesh.join()
  mesh.run(1_000)
  expect(modelOf(again).alike(old.sample.signature ?? new Uint8Array())).toEqual([])
  a.learned.learn('ruiz', learnt(2, 'ham'))
  expect(a.learned.retire()).toBe(0)
  later(90 * DAY_MS)
  expect(again.learned.retire()).toBe(1)
  mesh.run(5_000)
  expect(a.learned.counts()).toEqual({ spam: 0, ham: 1 })
  expect(a.learned.dump()).toBe(again.learned.dump())
})

test('a node that joins others forgets what it had learnt alone, and learns what they know', () => {
  const { mesh, a, b } = world(2)
  mesh.join([a.node], [b.node])
  for (let index = 0; index < 60; index += 1) a.learned.learn('ruiz', learnt(index, 'spam'))
  b.learned.learn('okafor', learnt(100, 'ham'))
  a.node.replica.reset([])
  mesh.run(1_000)
  expect(modelOf(a).samples(null)).toEqual({ spam: 0, ham: 0 })
  mesh.join()
  mesh.run(10_000)
  expect(modelOf(a).samples(null)).toEqual({ spam: 0, ham: 1 })
  expect(a.learned.dump()).toBe(b.learned.dump())
})

test('a sample that this version cannot read is kept, passed on, and not counted', () => {
  const { mesh, a, b } = world(2)
  const value = JSON.stringify({ label: 'spam', version: 2, tokens: 'AAAA', later: true })
  a.node.replica.write(SAMPLE_KIND, '0'.repeat(32), value, 'ruiz')
  a.node.replica.write(SAMPLE_KIND, 'nonsense', '{', 'ruiz')
  mesh.run(5_000)
  expect(b.learned.counts()).toEqual({ spam: 0, ham: 0 })
  expect(b.node.replica.cell(SAMPLE_KIND, '0'.repeat(32))?.heads[0]?.value).toBe(value)
})

test('a node that was never taught has no file', () => {
  const { a } = world(1)
  expect(a.learned.path).toBeNull()
  expect(readdirSync(a.directory)).toEqual([])
})
