/** Who is in the cluster: only whom a member let in, and never again who was removed. */
import { Database } from 'bun:sqlite'
import { afterEach, describe, expect, test } from 'bun:test'
import {
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { type NodeId, newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { Self } from '../src/cluster/contract.ts'
import {
  clusterIdOf,
  openIdentity,
  publicKeys,
  setCopyAside,
  storeJoined,
  thisMachine,
} from '../src/cluster/identity.ts'
import { isSigned, newKeys, signText } from '../src/cluster/keys.ts'
import {
  type Applicant,
  countMembers,
  MEMBER_KIND,
  type MemberFacts,
  MemberRoster,
} from '../src/cluster/roster.ts'
import { StoreDatabase } from '../src/store/db.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { Replica } from '../src/store/replica.ts'
import { ManualClock } from './clock.ts'
import { refusal } from './rooms.ts'

type Place = {
  readonly self: Self
  readonly state: Replica
  readonly lines: string[]
  readonly clusterId: string
}

let seed = 0

/** A node with rows of its own, not yet in any cluster. */
function place(node?: string): Place {
  seed += 1
  const random = new SeededRandom(seed * 7_919)
  const clock = new ManualClock()
  const lines: string[] = []
  const observer = new Observer(clock, (text) => lines.push(text))
  const sqlite = new Database(':memory:')
  for (const { sql } of STATE_MIGRATIONS) sqlite.run(sql)
  const id = (node ?? newNodeId(random)) as NodeId
  const state = new Replica(new StoreDatabase(sqlite, 'state.db', observer), {
    clock,
    random,
    node: id,
  })
  const keys = newKeys(random)
  const self = { node: id, keys, instance: state.writer, epoch: 1, version: '1' }
  return { self, state, lines, clusterId: clusterIdOf(id, publicKeys(keys)) }
}

function rosterOf({ self, state, lines }: Place, clusterId: string): MemberRoster {
  const clock = new ManualClock()
  return new MemberRoster(self, clusterId, state, {
    clock,
    observer: new Observer(clock, (text) => lines.push(text)),
  })
}

function facts(name: string): MemberFacts {
  const peer = [{ host: '192.0.2.1', port: 7946 }]
  return { name, peer, smtp: '', web: '', version: '1', features: [] }
}

function applicant({ self }: Place, name = 'mx2'): Applicant {
  return { node: self.node, ...publicKeys(self.keys), ...facts(name) }
}

/** Rows of `from` at `to`, in either direction as often as one likes. */
function carry(from: Place, to: Place): void {
  const rows = from.state.rowsOf(
    from.state.list(MEMBER_KIND).map(({ key }) => `${MEMBER_KIND}/${key}`),
  )
  to.state.apply({ peer: from.self.node, rows, as: { kind: 'repair' } })
}

const names = (roster: MemberRoster) => roster.members().map(({ name }) => name)

/** A founder and one that it let in, both with the rows of both. */
function pair() {
  const [a, b] = [place(), place()]
  const rosterA = rosterOf(a, a.clusterId)
  rosterA.announce(facts('mx1'))
  rosterA.admit(applicant(b), 'ann')
  const rosterB = rosterOf(b, a.clusterId)
  carry(a, b)
  return { a, b, rosterA, rosterB, clusterId: a.clusterId }
}

describe('the roster', () => {
  test('a node without peers is the founder of a cluster of one', () => {
    const a = place()
    const roster = rosterOf(a, a.clusterId)
    expect(roster.members()).toEqual([])
    roster.announce(facts('mx1'))
    expect(roster.members()).toMatchObject([
      { node: a.self.node, name: 'mx1', standing: 'member', drain: 'accepting', admittedBy: null },
    ])
    expect(roster.peers()).toEqual([])
    expect(roster.byExchange(a.self.keys.exchange.public)?.node).toBe(a.self.node)
  })

  test('saying the same again writes nothing', () => {
    const a = place()
    const roster = rosterOf(a, a.clusterId)
    roster.announce(facts('mx1'))
    const { head } = a.state
    roster.announce(facts('mx1'))
    expect(a.state.head).toBe(head)
    roster.announce(facts('other'))
    expect(a.state.head).toBeGreaterThan(head)
  })

  test('who was let in is a member on every node, this node first', () => {
    const { a, b, rosterA, rosterB } = pair()
    expect(names(rosterA)).toEqual(['mx1', 'mx2'])
    expect(names(rosterB)).toEqual(['mx2', 'mx1'])
    rosterB.announce(facts('mx2'))
    expect(rosterB.get(b.self.node)?.admittedBy).toBe(a.self.node)
    expect(rosterB.find('mx1')?.node).toBe(a.self.node)
    expect(rosterB.find(a.self.node)?.name).toBe('mx1')
    expect(rosterB.find('mx9')).toBeNull()
  })

  test('a chain of admissions is followed to the founder', () => {
    const { a, b, rosterB, clusterId } = pair()
    const c = place()
    rosterB.admit(applicant(c, 'mx3'), 'ann')
    const rosterC = rosterOf(c, clusterId)
    carry(b, c)
    expect(names(rosterC).sort()).toEqual(['mx1', 'mx2', 'mx3'])
    carry(b, a)
    expect(rosterB.admittedBy(b.self.node).map(({ name }) => name)).toEqual(['mx3'])
  })

  test('a row that no member has signed is nobody, and is told once (K03)', () => {
    const { a, rosterA } = pair()
    const rogue = place()
    const good = fieldsOf(a, rogue, rosterA)
    type Fields = Record<string, unknown>
    const signed =
      (by: Place, fields: Fields, cluster = a.clusterId) =>
      (node: string) => ({
        ...fields,
        signature: signatureOf(by, cluster, fields, node),
      })
    const forged: readonly ((node: string) => Fields)[] = [
      // Itself as a founder of this cluster.
      signed(rogue, { ...good, admittedBy: null }),
      // In the name of a member, with a signature of its own.
      signed(rogue, good),
      // Signed by a member, for another cluster.
      signed(a, good, '0123456789abcdef'),
      // Signed by a member, for another node.
      () => signed(a, good)('1234567812345678'),
      // Let in by somebody who is not known.
      signed(rogue, { ...good, admittedBy: rogue.self.node }),
      // Other keys under a good signature.
      (node) => ({ ...signed(a, good)(node), exchange: good['sign'] }),
      () => ({ ...good, signature: 'AAAA' }),
      signed(a, { ...good, admittedMs: 'now' }),
      signed(a, { ...good, sign: 17 }),
      () => ({}),
    ]
    forged.forEach((make, at) => {
      const node = `${at}`.repeat(16)
      a.state.write(MEMBER_KIND, node, JSON.stringify(make(node)), 'postern')
      expect(rosterA.get(node as NodeId)).toBeNull()
    })
    // The same by a member is somebody: the rows above fail for their reasons only.
    const member = 'e'.repeat(16)
    a.state.write(MEMBER_KIND, member, JSON.stringify(signed(a, good)(member)), 'postern')
    expect(rosterA.get(member as NodeId)).not.toBeNull()
    a.state.write(MEMBER_KIND, member, null, 'postern')
    const id = 'f'.repeat(16)
    for (const value of ['', 'null', '[]', '7', '{"exchange":']) {
      a.state.write(MEMBER_KIND, id, value, 'postern')
      expect(rosterA.get(id as NodeId)).toBeNull()
    }
    expect(names(rosterA)).toEqual(['mx1', 'mx2'])
    const told = () => a.lines.filter((line) => line.includes('member.refused')).length
    expect(told()).toBe(forged.length + 5)
    rosterA.setDrain(a.self.node, 'draining', 'ann')
    expect(told()).toBe(forged.length + 5)
  })

  test('two that let each other in are nobody', () => {
    const a = place()
    const [x, y] = [place(), place()]
    const roster = rosterOf(a, a.clusterId)
    roster.announce(facts('mx1'))
    for (const [one, other] of [
      [x, y],
      [y, x],
    ] as const) {
      const signed = {
        exchange: Buffer.from(one.self.keys.exchange.public).toString('base64url'),
        sign: Buffer.from(one.self.keys.sign.public).toString('base64url'),
        admittedBy: other.self.node,
        admittedMs: 1,
      }
      const signature = signatureOf(other, a.clusterId, signed, one.self.node)
      a.state.write(MEMBER_KIND, one.self.node, JSON.stringify({ ...signed, signature }), 'x')
    }
    expect(names(roster)).toEqual(['mx1'])
  })

  test('fields of a later version are kept, and signed with the rest', () => {
    const { a, b, rosterA, rosterB } = pair()
    const cell = a.state.cell(MEMBER_KIND, `${b.self.node}/self`)
    const said = { ...JSON.parse(cell?.heads[0]?.value ?? ''), zone: 'dc2' }
    b.state.write(MEMBER_KIND, `${b.self.node}/self`, JSON.stringify(said), 'postern')
    rosterB.announce(facts('renamed'))
    carry(b, a)
    expect(rosterA.get(b.self.node)?.name).toBe('renamed')
    const now = a.state.cell(MEMBER_KIND, `${b.self.node}/self`)
    expect(JSON.parse(now?.heads[0]?.value ?? '').zone).toBe('dc2')

    const c = place()
    const signed = { ...fieldsOf(a, c, rosterA), level: 3 }
    const signature = signatureOf(a, a.clusterId, signed, c.self.node)
    a.state.write(MEMBER_KIND, c.self.node, JSON.stringify({ ...signed, signature }), 'x')
    expect(rosterA.get(c.self.node)).not.toBeNull()
  })

  test('an eviction stands whatever else was written, on every node (K05)', () => {
    // Heads stand in the order of their writers, which are random: both orders come up.
    for (let round = 0; round < 8; round += 1) {
      const { a, b, rosterA, rosterB } = pair()
      rosterA.evict(b.self.node, 'ann')
      // At the same time, on its own side, it leaves and says that all is well.
      rosterB.markLeft(b.self.node, 'bob')
      if (round % 2 === 0) {
        b.state.write(MEMBER_KIND, `${b.self.node}/standing`, '"member"', 'bob')
      }
      carry(b, a)
      carry(a, b)
      for (const roster of [rosterA, rosterB]) {
        expect(roster.get(b.self.node)?.standing).toBe('evicted')
        expect(names(roster)).toEqual(['mx1'])
        expect(roster.byExchange(b.self.keys.exchange.public)?.standing).toBe('evicted')
      }
      rosterA.markLeft(b.self.node, 'ann')
      expect(rosterA.get(b.self.node)?.standing).toBe('evicted')
      expect(refusal(() => rosterB.announce(facts('mx2'))).advice).toContain('--new-identity')
      expect(refusal(() => rosterA.admit(applicant(b), 'ann')).message).toContain('was removed')
    }
  })

  test('who left may still be evicted, and is never let in again', () => {
    const { a, b, rosterA } = pair()
    expect(countMembers(a.state)).toBe(2)
    rosterA.markLeft(b.self.node, 'ann')
    expect(rosterA.get(b.self.node)?.standing).toBe('left')
    expect(countMembers(a.state)).toBe(1)
    expect(refusal(() => rosterA.admit(applicant(b), 'ann')).message).toContain('has left')
    rosterA.evict(b.self.node, 'ann')
    expect(rosterA.get(b.self.node)?.standing).toBe('evicted')
    expect(refusal(() => rosterA.evict('0'.repeat(16) as NodeId, 'ann')).code).toBe('notFound')
  })

  test('a node whose id begins like that of a member is refused (K13)', () => {
    const { a, b, rosterA } = pair()
    const twin = place(`${b.self.node.slice(0, 8)}00000000`)
    const { code, advice } = refusal(() => rosterA.admit(applicant(twin), 'ann'))
    expect(code).toBe('conflict')
    expect(advice).toContain('--new-identity')
    const copied = { ...applicant(place()), sign: b.self.keys.sign.public }
    expect(refusal(() => rosterA.admit(copied, 'ann')).code).toBe('conflict')
    const other = { ...applicant(b), exchange: place().self.keys.exchange.public }
    expect(refusal(() => rosterA.admit(other, 'ann')).code).toBe('conflict')
    // The same node with its own keys is only let in once more.
    const { head } = a.state
    rosterA.admit(applicant(b), 'ann')
    expect(a.state.head).toBe(head)
  })

  test('a node says whether it wants mail', () => {
    const { a, b, rosterA, rosterB } = pair()
    rosterB.setDrain(b.self.node, 'draining', 'ann')
    carry(b, a)
    expect(rosterA.get(b.self.node)?.drain).toBe('draining')
    rosterB.announce(facts('mx2'))
    carry(b, a)
    expect(rosterA.get(b.self.node)?.drain).toBe('draining')
  })

  test('keys or rows of another node are told apart at the start', () => {
    const { b, clusterId } = pair()
    const stolen = { ...b, self: { ...b.self, keys: place().self.keys } }
    expect(refusal(() => rosterOf(stolen, clusterId).announce(facts('mx2'))).message).toContain(
      'keys',
    )
    const empty = place()
    expect(refusal(() => rosterOf(empty, clusterId).announce(facts('mx2'))).advice).toContain(
      'backup',
    )
  })

  test('what a peer says of itself cannot hurt', () => {
    const { a, b, rosterA } = pair()
    const said = {
      name: 7,
      peer: [
        { host: 'mx.example', port: 1 },
        { host: '192.0.2.7', port: 0 },
        null,
        { host: '::1', port: 9 },
      ],
      features: ['x', 3],
      web: 'w'.repeat(1_000),
    }
    a.state.write(MEMBER_KIND, `${b.self.node}/self`, JSON.stringify(said), 'postern')
    expect(rosterA.get(b.self.node)).toMatchObject({
      name: b.self.node,
      peer: [{ host: '::1', port: 9 }],
      features: ['x'],
      web: 'w'.repeat(300),
    })
  })

  test('listeners and the log hear who comes and goes', () => {
    const { a, b, rosterA } = pair()
    let heard = 0
    rosterA.onChange(() => {
      heard += 1
    })
    rosterA.evict(b.self.node, 'ann')
    expect(heard).toBe(1)
    // Lines of a log leave in groups; a later one of rank takes them along.
    a.state.write(MEMBER_KIND, '0'.repeat(16), '{}', 'x')
    expect(a.lines.join('')).toContain('"standing":"evicted"')
  })
})

/** The signed fields of an admission of `guest` by `host`. */
function fieldsOf(host: Place, guest: Place, roster: MemberRoster): Record<string, unknown> {
  expect(roster.get(host.self.node)).not.toBeNull()
  return {
    exchange: Buffer.from(guest.self.keys.exchange.public).toString('base64url'),
    sign: Buffer.from(guest.self.keys.sign.public).toString('base64url'),
    admittedBy: host.self.node,
    admittedMs: 1,
  }
}

function signatureOf(
  by: Place,
  clusterId: string,
  { signature: _, ...fields }: Record<string, unknown>,
  node: string = by.self.node,
): string {
  const all: Record<string, unknown> = { ...fields, node, clusterId }
  const sorted = Object.fromEntries(
    Object.keys(all)
      .sort()
      .map((key) => [key, all[key]]),
  )
  const text = `postern member\n${JSON.stringify(sorted)}`
  return Buffer.from(signText(by.self.keys, text)).toString('base64url')
}

describe('keys', () => {
  test('a signature is that of RFC 8032, and of nothing else', () => {
    // Test 1 of RFC 8032 section 7.1: the empty message.
    const secret = '9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60'
    const made = newKeys(new SeededRandom(1))
    const keys = {
      ...made,
      sign: { ...made.sign, secret: new Uint8Array(Buffer.from(secret, 'hex')) },
    }
    const signature = signText(keys, '')
    expect(Buffer.from(signature).toString('hex')).toStartWith('e5564300c360ac729086e2cc806e828a')
    const by = new Uint8Array(
      Buffer.from('d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a', 'hex'),
    )
    expect(isSigned(by, '', signature)).toBe(true)
    expect(isSigned(by, 'x', signature)).toBe(false)
    expect(isSigned(made.sign.public, '', signature)).toBe(false)
    expect(isSigned(by.subarray(1), '', signature)).toBe(false)
    expect(isSigned(by, '', signature.subarray(1))).toBe(false)
  })
})

describe('the identity of a node', () => {
  const made: string[] = []
  const directory = () => {
    const path = mkdtempSync(join(tmpdir(), 'postern-identity-'))
    made.push(path)
    return path
  }
  afterEach(() => {
    for (const path of made.splice(0)) rmSync(path, { recursive: true, force: true })
  })
  const node = newNodeId(new SeededRandom(5))
  const here = { machineId: 'a', productUuid: 'b' }
  const open = (path: string, machine: Record<string, string> | null = here, adopt = false) =>
    openIdentity(path, node, { random: new SeededRandom(3), machine, adopt })

  test('is made once, for its owner only, and read again', () => {
    const path = directory()
    const first = open(path)
    expect(statSync(join(path, 'node.key')).mode & 0o777).toBe(0o600)
    expect(open(path)).toEqual(first)
    expect(first.clusterId).toBe(clusterIdOf(node, publicKeys(first.keys)))
    expect(first.joined).toBeNull()
  })

  test('on another machine it is refused, with both remedies, until somebody says what it is', () => {
    const path = directory()
    const first = open(path)
    for (const other of [
      { machineId: 'x', productUuid: 'b' },
      { machineId: 'a', productUuid: 'x' },
    ]) {
      const { code, advice } = refusal(() => open(path, other))
      expect(code).toBe('conflict')
      expect(advice).toContain('--adopt-identity')
      expect(advice).toContain('--new-identity')
    }
    expect(open(path, { machineId: 'x', productUuid: 'y' }, true)).toEqual(first)
    expect(open(path, { machineId: 'x', productUuid: 'y' })).toEqual(first)
    expect(refusal(() => open(path)).code).toBe('conflict')
  })

  test('what a user cannot read, and a container, say nothing', () => {
    const path = directory()
    open(path, { machineId: 'a' })
    open(path, here)
    open(path, { machineId: 'a' })
    open(path, null)
    expect(refusal(() => open(path, { machineId: 'a', productUuid: 'x' })).code).toBe('conflict')
  })

  test('a container has no machine', () => {
    const files: Record<string, string> = {
      '/etc/machine-id': `${'a1'.repeat(16)}\n`,
      '/sys/class/dmi/id/product_uuid': 'U-1\n',
    }
    const at = (more: Record<string, string> = {}, environment: Record<string, string> = {}) =>
      thisMachine(environment, (path) => ({ ...files, ...more })[path] ?? null)
    expect(Object.keys(at() ?? {})).toEqual(['machineId', 'productUuid'])
    expect(JSON.stringify(at())).not.toContain('a1a1')
    expect(at({ '/.dockerenv': '' })).toBeNull()
    expect(at({}, { container: 'podman' })).toBeNull()
    expect(at({ '/etc/machine-id': 'uninitialized\n' })).toBeNull()
    expect(thisMachine({}, () => null)).toBeNull()
  })

  test('a damaged key is refused, and fields of a later version are kept (K08)', () => {
    const path = directory()
    open(path)
    const file = join(path, 'node.key')
    const stored = JSON.parse(readFileSync(file, 'utf8'))
    writeFileSync(file, JSON.stringify({ ...stored, later: 1 }))
    storeJoined(path, {
      clusterId: '0123456789abcdef',
      issuer: node,
      name: 'mx2',
      rows: [{ x: 1 }],
    })
    expect(JSON.parse(readFileSync(file, 'utf8')).later).toBe(1)
    expect(open(path)).toMatchObject({
      clusterId: '0123456789abcdef',
      joined: { rows: [{ x: 1 }] },
    })
    for (const text of [
      '',
      '{',
      '[]',
      '{}',
      JSON.stringify({ ...stored, sign: 'AA' }),
      JSON.stringify({ ...stored, clusterId: 'x' }),
    ]) {
      writeFileSync(file, text)
      expect(refusal(() => open(path)).advice).toContain('backup')
    }
  })

  test('a copy that becomes a new node leaves behind all that is the original’s', () => {
    const path = directory()
    const first = open(path)
    const files = ['node.json', 'state.db', 'held.key', 'setup-code', 'lock', 'control.sock']
    for (const name of files) writeFileSync(join(path, name), name)
    const clock = new ManualClock()
    const aside = setCopyAside(path, clock) ?? ''
    const place = aside.slice(path.length + 1)
    expect(readdirSync(path).sort()).toEqual(['control.sock', place, 'lock'])
    expect(readdirSync(aside).sort()).toEqual([
      'held.key',
      'node.json',
      'node.key',
      'setup-code',
      'state.db',
    ])
    const other = newNodeId(new SeededRandom(8))
    const random = new SeededRandom(9)
    const options = { random, machine: here, adopt: false }
    expect(openIdentity(path, other, options).clusterId).not.toBe(first.clusterId)
    expect(setCopyAside(directory(), clock)).toBeNull()
  })

  test('a flag that was left in a unit does not set aside for ever', () => {
    const path = directory()
    const clock = new ManualClock()
    for (let start = 0; start < 5; start += 1) {
      open(path)
      clock.advance(1_000)
      expect(setCopyAside(path, clock)).not.toBeNull()
    }
    open(path)
    expect(refusal(() => setCopyAside(path, clock)).advice).toContain('for one start')
    expect(existsSync(join(path, 'node.key'))).toBe(true)
  })
})
