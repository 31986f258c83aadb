/** How a node joins: with one token, once, to the right cluster, or with words that say why not. */
import { Database } from 'bun:sqlite'
import { describe, expect, test } from 'bun:test'
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { RefusalError } from '../src/base/errors.ts'
import { type NodeId, newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { Network, PeerAddress, Self } from '../src/cluster/contract.ts'
import { clusterIdOf, openIdentity, publicKeys } from '../src/cluster/identity.ts'
import { INVITATION_KIND, Invitations, type InviteInput } from '../src/cluster/invite.ts'
import { finishJoin, JoinDoor, type JoinOptions, joinCluster } from '../src/cluster/join.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { MEMBER_KIND, type MemberFacts, MemberRoster } from '../src/cluster/roster.ts'
import { dialSecure, Gate } from '../src/cluster/secure.ts'
import { type JoinToken, pskOf, readToken, writeToken } from '../src/cluster/token.ts'
import { StoreDatabase } from '../src/store/db.ts'
import { IssuedTokens } from '../src/store/invitations.ts'
import { STATE_MIGRATIONS } from '../src/store/migrations/index.ts'
import { Replica } from '../src/store/replica.ts'
import { ManualClock } from './clock.ts'
import { Pipes } from './pipes.ts'
import { refusal } from './rooms.ts'

const PROTOCOL = { min: 1, max: 2 }
const PORT = 7_946

/** Streams and datagrams between named hosts. */
class Wires {
  readonly pipes = new Pipes()
  /** Where a datagram for an address goes. */
  route: (to: string) => string = (to) => to
  /** Hosts that no datagram reaches. */
  readonly deaf = new Set<string>()
  readonly #sockets = new Map<string, (bytes: Uint8Array, from: PeerAddress) => void>()
  #port = 50_000

  at(host: string): Network {
    return {
      ...this.pipes.at(host),
      datagrams: async ({ port }, received) => {
        this.#port += 1
        const own = { host, port: port === 0 ? this.#port : port }
        const name = placeOf(own)
        if (this.#sockets.has(name)) throw new RefusalError('conflict', 'peer', 'In use.', '')
        this.#sockets.set(name, received)
        return {
          port: own.port,
          send: (bytes, to) => {
            if (this.deaf.has(to.host)) return
            const socket = () => this.#sockets.get(this.route(placeOf(to)))
            this.pipes.run(() => socket()?.(bytes.slice(), own))
          },
          close: () => this.#sockets.delete(name),
        }
      },
    }
  }
}

function placeOf({ host, port }: PeerAddress): string {
  return `${host}:${port}`
}

let seed = 100

/** One node on `host`, a cluster of one until it joins. */
class Place {
  readonly clock: ManualClock
  readonly self: Self
  readonly state: Replica
  readonly issued: IssuedTokens
  readonly sqlite = new Database(':memory:')
  readonly lines: string[] = []
  readonly deps
  readonly host: string
  clusterId: string
  roster: MemberRoster
  invitations: Invitations
  #gate: Gate | null = null

  constructor(wires: Wires, host: string, options: { node?: string; clock?: ManualClock } = {}) {
    seed += 1
    this.host = host
    this.clock = options.clock ?? new ManualClock()
    const random = new SeededRandom(seed * 104_729)
    const observer = new Observer(this.clock, (text) => this.lines.push(text))
    this.deps = { clock: this.clock, random, network: wires.at(host), observer }
    for (const { sql } of STATE_MIGRATIONS) this.sqlite.run(sql)
    const store = new StoreDatabase(this.sqlite, 'state.db', observer)
    const node = (options.node ?? newNodeId(random)) as NodeId
    this.state = new Replica(store, { clock: this.clock, random, node })
    this.issued = new IssuedTokens(store)
    const keys = newKeys(random)
    this.self = { node, keys, instance: this.state.writer, epoch: 1, version: '1' }
    this.clusterId = clusterIdOf(node, publicKeys(keys))
    this.roster = new MemberRoster(this.self, this.clusterId, this.state, this.deps)
    this.invitations = this.#newInvitations()
    this.roster.announce(this.facts())
  }

  facts(): MemberFacts {
    const peer = [{ host: this.host, port: PORT }]
    return { name: this.host, peer, smtp: '', web: '', version: '1', features: ['a'] }
  }

  /** Listens for whoever holds a token. */
  async open(protocol = PROTOCOL): Promise<this> {
    const { roster, state, invitations } = this
    const listen = { host: this.host, port: PORT }
    const gate = new Gate(
      {
        own: this.self.keys.exchange,
        clusterId: this.clusterId,
        protocol,
        parallelCrypto: false,
        greet: () => null,
        opened: () => {},
        onJoin: new JoinDoor({ roster, state, invitations, listen }, this.deps),
      },
      this.deps,
    )
    this.#gate = gate
    await this.deps.network.listen(listen, (stream) => gate.accept(stream))
    return this
  }

  get halfOpen(): number {
    return this.#gate?.halfOpen ?? 0
  }

  options(more: Partial<JoinOptions> = {}): JoinOptions {
    return {
      self: this.self,
      clusterId: this.clusterId,
      members: this.roster.members().length,
      own: { operators: 0, domains: 0 },
      discard: false,
      listen: { host: this.host, port: PORT },
      facts: this.facts(),
      protocol: PROTOCOL,
      ...more,
    }
  }

  async join(token: string, more: Partial<JoinOptions> = {}): Promise<void> {
    const joined = await joinCluster(token, this.options(more), this.deps)
    const { state, issued } = this
    const directory = mkdtempSync(join(tmpdir(), 'postern-join-'))
    try {
      openIdentity(directory, this.self.node, {
        random: this.deps.random,
        machine: null,
        adopt: false,
      })
      finishJoin(directory, joined, ['held'], { state, issued })
      const stored = JSON.parse(readFileSync(join(directory, 'node.key'), 'utf8'))
      expect(stored).toMatchObject({ clusterId: joined.clusterId, joined: null })
    } finally {
      rmSync(directory, { recursive: true })
    }
    this.clusterId = joined.clusterId
    this.roster = new MemberRoster(this.self, this.clusterId, state, this.deps)
    this.invitations = this.#newInvitations()
    this.roster.announce({ ...this.facts(), name: joined.name })
  }

  names(): readonly string[] {
    return this.roster.members().map(({ name }) => name)
  }

  #newInvitations(): Invitations {
    const { roster, state, issued } = this
    const addresses = () => [{ host: this.host, port: PORT }]
    return new Invitations({ roster, state, issued, addresses }, this.deps)
  }
}

async function refused(act: Promise<unknown>): Promise<RefusalError> {
  const error = await act.then(
    () => null,
    (thrown: unknown) => thrown,
  )
  if (error instanceof RefusalError) return error
  throw error ?? new Error('nothing was refused')
}

/** An issuer that listens, and a node that wants to join. */
async function pair(more: { node?: string; clock?: ManualClock } = {}) {
  const wires = new Wires()
  const a = await new Place(wires, '192.0.2.1').open()
  const b = new Place(wires, '192.0.2.2', more)
  return { wires, a, b }
}

/** Rows of the given kind, from one node to another. */
function carry(from: Place, to: Place, kind: string): void {
  const rows = from.state.rowsOf(from.state.list(kind).map(({ key }) => `${kind}/${key}`))
  to.state.apply({ peer: from.self.node, rows, as: { kind: 'repair' } })
}

const stateOf = ({ invitations }: Place, id: string) =>
  invitations.list().find((token) => token.id === id)?.state

describe('a join', () => {
  test('makes one cluster of two nodes, each of which knows both', async () => {
    const { a, b } = await pair()
    const { token, id } = a.invitations.invite({}, 'ann')
    await b.join(token)
    expect(b.clusterId).toBe(a.clusterId)
    expect(a.names()).toEqual(['192.0.2.1', '192.0.2.2'])
    expect(b.names()).toEqual(['192.0.2.2', '192.0.2.1'])
    expect(a.roster.get(b.self.node)).toMatchObject({
      admittedBy: a.self.node,
      peer: [{ host: '192.0.2.2', port: PORT }],
      features: ['a'],
    })
    expect(a.invitations.list()).toMatchObject([
      { id, state: 'used', issuer: a.self.node, by: 'ann', usedBy: '192.0.2.2' },
    ])
  })

  test('leaves nothing of the cluster of one behind, but its held mail', async () => {
    const { a, b } = await pair()
    b.state.write('setting', 'policy.hold', '3', 'bob')
    b.state.put('held', 'm1', [1, 1], '{}', 'postern', null)
    const own = b.invitations.invite({}, 'bob')
    await b.join(a.invitations.invite({}, 'ann').token)
    expect(b.state.cell('setting', 'policy.hold')).toBeNull()
    expect(b.state.owned('held', 'm1')?.value).toBe('{}')
    expect(b.invitations.list()).toEqual([])
    expect(b.issued.get(own.id)).toBeNull()
  })

  test('goes on from any member', async () => {
    const { wires, a, b } = await pair()
    await b.join(a.invitations.invite({}, 'ann').token)
    await b.open()
    const c = new Place(wires, '192.0.2.3')
    await c.join(b.invitations.invite({ name: 'mx3' }, 'ann').token)
    expect([...c.names()].sort()).toEqual(['192.0.2.1', '192.0.2.2', 'mx3'])
    carry(c, a, MEMBER_KIND)
    expect(a.roster.get(c.self.node)?.admittedBy).toBe(b.self.node)
  })

  test('in place of a node that is gone removes that one, at the moment it is used', async () => {
    const { wires, a, b } = await pair()
    await b.join(a.invitations.invite({ name: 'mx2' }, 'ann').token)
    await b.open()
    const gone = b.self.node
    const refused = (input: InviteInput) => () => a.invitations.invite(input, 'ann')
    expect(refused({ replaces: 'mx9' })).toThrow('There is no member "mx9" to replace.')
    expect(refused({ replaces: 'mx2', uses: 2 })).toThrow('replaced by one node only')
    expect(refused({ replaces: a.self.node })).toThrow('does not replace itself')
    const { token } = a.invitations.invite({ name: 'mx2', replaces: 'mx2' }, 'ann')
    expect(a.roster.get(gone)?.standing).toBe('member')
    const c = new Place(wires, '192.0.2.3')
    await c.join(token)
    expect(a.roster.get(gone)?.standing).toBe('evicted')
    expect(a.roster.get(c.self.node)?.name).toBe('mx2')
    expect(c.roster.get(gone)?.standing).toBe('evicted')
  })

  test('shows nothing of what it carries', async () => {
    const { wires, a, b } = await pair()
    const { token } = a.invitations.invite({ name: 'very-secret-name' }, 'ann')
    const secret = Buffer.from(readToken(token).secret)
    await b.join(token)
    const seen = Buffer.concat(wires.pipes.seen.map(({ bytes }) => bytes))
    for (const text of ['very-secret-name', b.self.node, 'clusterId', 'admittedBy', token]) {
      expect(seen.includes(text)).toBe(false)
    }
    expect(seen.includes(secret)).toBe(false)
    // Nor is the token kept, or told to the log.
    const kept = Buffer.from(a.sqlite.serialize())
    expect(kept.includes(secret)).toBe(false)
    expect(kept.includes(secret.toString('base64url'))).toBe(false)
    expect(a.lines.join('') + b.lines.join('')).not.toContain(secret.toString('base64url'))
    expect(kept.includes(token.slice(4, 60))).toBe(false)
  })

  test('is done again when its answer was lost, with the same token', async () => {
    const { wires, a, b } = await pair()
    const { token, id } = a.invitations.invite({}, 'ann')
    let isLost = false
    wires.pipes.change = ({ from, bytes }) => {
      // The commit is done, and the host of the answer loses its power.
      if (from === '192.0.2.1' && a.names().length === 2) isLost = true
      return isLost ? null : bytes
    }
    const first = refused(b.join(token))
    await eventually(() => isLost)
    for (const { clock } of [a, b]) clock.advance(30_000)
    expect((await first).advice).toContain('same token')
    isLost = false
    wires.pipes.change = ({ bytes }) => bytes
    await b.join(token)
    expect(b.names()).toEqual(['192.0.2.2', '192.0.2.1'])
    expect(a.issued.get(id)?.usesLeft).toBe(0)
    expect(a.roster.members()).toHaveLength(2)
  })

  test('that was granted is finished at the next start, however often', async () => {
    const { a, b } = await pair()
    const joined = await joinCluster(a.invitations.invite({}, 'ann').token, b.options(), b.deps)
    const directory = mkdtempSync(join(tmpdir(), 'postern-join-'))
    const open = () =>
      openIdentity(directory, b.self.node, { random: b.deps.random, machine: null, adopt: false })
    open()
    // The process ends right after its rows were dropped.
    const failing = Object.create(b.state) as Replica
    failing.apply = () => {
      throw new Error('power cut')
    }
    failing.transact = (act) => act()
    failing.reset = (keep) => b.state.reset(keep)
    expect(() => finishJoin(directory, joined, [], { state: failing, issued: b.issued })).toThrow()
    const again = open()
    expect(again.clusterId).toBe(a.clusterId)
    expect(again.joined).toEqual(joined)
    for (let round = 0; round < 2; round += 1) {
      finishJoin(directory, again.joined ?? joined, [], { state: b.state, issued: b.issued })
    }
    expect(open().joined).toBeNull()
    const roster = new MemberRoster(b.self, again.clusterId, b.state, b.deps)
    expect(roster.members()).toHaveLength(2)
    rmSync(directory, { recursive: true })
  })
})

/** Runs what is settled until `check` holds; everything is in this process, so it takes no time. */
async function eventually(check: () => boolean): Promise<void> {
  for (let round = 0; round < 10_000 && !check(); round += 1) await Promise.resolve()
  expect(check()).toBe(true)
}

describe('a token', () => {
  test('lets in as many as it says, and nobody more (K04)', async () => {
    const { wires, a, b } = await pair()
    const { token, id } = a.invitations.invite({ uses: 2 }, 'ann')
    await b.join(token)
    expect(stateOf(a, id)).toBe('open')
    await new Place(wires, '192.0.2.3').join(token)
    expect(stateOf(a, id)).toBe('used')
    const late = await refused(new Place(wires, '192.0.2.4').join(token))
    expect(late.message).toContain('used already')
    expect(late.advice).toContain('postern invite')
    expect(a.roster.members()).toHaveLength(3)
  })

  test('for one lets in one of two that come at once', async () => {
    const { wires, a, b } = await pair()
    const { token } = a.invitations.invite({}, 'ann')
    const c = new Place(wires, '192.0.2.3')
    const ends = await Promise.allSettled([b.join(token), c.join(token)])
    expect(ends.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected'])
    expect(a.roster.members()).toHaveLength(2)
  })

  test('expires by the clock of its issuer', async () => {
    const { wires, a } = await pair()
    const { token, id, expiresMs } = a.invitations.invite({ minutes: 1 }, 'ann')
    expect(expiresMs).toBe(a.clock.wallMs() + 60_000)
    a.clock.advance(60_000)
    expect(stateOf(a, id)).toBe('expired')
    // The clock of this one stood still.
    const late = await refused(new Place(wires, '192.0.2.3').join(token))
    expect(late.message).toContain('has expired')
    a.clock.advance(30 * 86_400_000 + 60_000)
    a.invitations.invite({}, 'ann')
    expect(a.invitations.retire()).toBe(1)
    expect(a.invitations.retire()).toBe(0)
    expect(a.invitations.list()).toHaveLength(1)
    const forgotten = await refused(new Place(wires, '192.0.2.4').join(token))
    expect(forgotten.message).toContain('does not take this token')
  })

  test('that was revoked lets nobody in, whoever revoked it', async () => {
    const { wires, a, b } = await pair()
    await b.join(a.invitations.invite({}, 'ann').token)
    const [here, there] = [a.invitations.invite({}, 'ann'), a.invitations.invite({}, 'ann')]
    a.invitations.revoke(here.id, 'ann')
    carry(a, b, INVITATION_KIND)
    expect(
      b.invitations
        .list()
        .map(({ state }) => state)
        .sort(),
    ).toEqual(['open', 'revoked', 'used'])
    b.invitations.revoke(there.id, 'bob')
    carry(b, a, INVITATION_KIND)
    const c = new Place(wires, '192.0.2.3')
    for (const { token, id } of [here, there]) {
      expect(stateOf(a, id)).toBe('revoked')
      expect((await refused(c.join(token))).message).toContain('was revoked')
    }
    expect(refusal(() => a.invitations.revoke(here.id, 'ann')).code).toBe('conflict')
    expect(refusal(() => a.invitations.revoke('0'.repeat(12), 'ann')).code).toBe('notFound')
  })

  test('of a removed node is revoked on every node', async () => {
    const { a, b } = await pair()
    await b.join(a.invitations.invite({}, 'ann').token)
    const { id } = b.invitations.invite({}, 'bob')
    carry(b, a, INVITATION_KIND)
    expect(stateOf(a, id)).toBe('open')
    a.roster.evict(b.self.node, 'ann')
    expect(stateOf(a, id)).toBe('revoked')
  })

  test('of a removed node lets nobody in where the node heard of it', async () => {
    const { wires, a, b } = await pair()
    await b.join(a.invitations.invite({}, 'ann').token)
    await b.open()
    const { token } = b.invitations.invite({}, 'bob')
    a.roster.evict(b.self.node, 'ann')
    carry(a, b, MEMBER_KIND)
    expect((await refused(new Place(wires, '192.0.2.3').join(token))).message).toContain('revoked')
  })

  test('is burned after ten handshakes that fail', () => {
    const wires = new Wires()
    const a = new Place(wires, '192.0.2.1')
    const { id } = a.invitations.invite({}, 'ann')
    const bytes = new Uint8Array(Buffer.from(id, 'hex'))
    for (let tries = 1; tries < 10; tries += 1) a.invitations.failed(bytes)
    expect(stateOf(a, id)).toBe('open')
    a.invitations.failed(bytes)
    expect(stateOf(a, id)).toBe('revoked')
    for (let tries = 0; tries < 5; tries += 1) a.invitations.failed(bytes)
    a.invitations.failed(new Uint8Array(6))
  })

  test('with another secret is not taken, and the right one still is (K04)', async () => {
    const { wires, a, b } = await pair()
    const { token } = a.invitations.invite({}, 'ann')
    const parts = readToken(token)
    for (let guess = 0; guess < 20; guess += 1) {
      const secret = b.deps.random.bytes(20)
      const { message } = await refused(
        new Place(wires, `192.0.2.${10 + guess}`).join(writeToken({ ...parts, secret })),
      )
      expect(message).toContain('does not take this token')
    }
    a.clock.advance(2_000)
    await b.join(token)
    expect(a.roster.members()).toHaveLength(2)
  })

  test('of another cluster, or of a node that was made anew, is not taken', async () => {
    const { wires, a, b } = await pair()
    const other = await new Place(wires, '192.0.2.9').open()
    const foreign = other.invitations.invite({}, 'eve')
    const at = (host: string) => [{ host, port: PORT }]
    // The address is that of a node of another cluster.
    const moved = writeToken({ ...readToken(foreign.token), addresses: at('192.0.2.1') })
    expect((await refused(b.join(moved))).message).toContain('does not take this token')
    // The right node, and the id of another cluster.
    const { token } = a.invitations.invite({}, 'ann')
    const wrong = writeToken({ ...readToken(token), clusterId: other.clusterId })
    expect((await refused(b.join(wrong))).message).toContain('does not take this token')
    expect(a.roster.members()).toHaveLength(1)
  })

  test('has bounds, and each says so', () => {
    const a = new Place(new Wires(), '192.0.2.1')
    for (const input of [
      { minutes: 0 },
      { minutes: 1_441 },
      { minutes: 1.5 },
      { uses: 0 },
      { uses: 101 },
      { name: ' ' },
      { name: 'mx 3!' },
      { name: a.roster.members()[0]?.name ?? '' },
      { name: 'mx3', uses: 2 },
      { name: 'n'.repeat(64) },
    ]) {
      expect(refusal(() => a.invitations.invite(input, 'ann')).field).not.toBeNull()
    }
    expect(a.invitations.list()).toEqual([])
    for (let count = 0; count < 100; count += 1) a.invitations.invite({}, 'ann')
    expect(refusal(() => a.invitations.invite({}, 'ann')).advice).toContain('--revoke')
    expect(new Set(a.invitations.list().map(({ id }) => id)).size).toBe(100)
    const { roster, state, issued, deps } = new Place(new Wires(), '192.0.2.1')
    const nowhere = new Invitations({ roster, state, issued, addresses: () => [] }, deps)
    expect(refusal(() => nowhere.invite({}, 'ann')).advice).toContain('--advertise')
  })

  test('reads as it was written', () => {
    const octet = fc.integer({ min: 0, max: 255 })
    const word = fc.integer({ min: 0, max: 65_535 }).map((value) => value.toString(16))
    const host = fc.oneof(
      fc.tuple(octet, octet, octet, octet).map((parts) => parts.join('.')),
      fc
        .array(fc.oneof(word, fc.constant('0')), { minLength: 8, maxLength: 8 })
        .map((words) => new URL(`http://[${words.join(':')}]`).hostname.slice(1, -1)),
    )
    const port = fc.integer({ min: 1, max: 65_535 })
    const bytes = (length: number) => fc.uint8Array({ minLength: length, maxLength: length })
    const hex = (length: number) => bytes(length).map((raw) => Buffer.from(raw).toString('hex'))
    const token: fc.Arbitrary<JoinToken> = fc.record({
      clusterId: hex(8),
      id: hex(6),
      secret: bytes(20),
      issuer: bytes(32),
      expiresMs: fc.integer({ min: 0, max: 0xffff_ffff }).map((s) => s * 1_000),
      addresses: fc.array(fc.record({ host, port }), { maxLength: 4 }),
    })
    fc.assert(
      fc.property(token, (made) => {
        const text = writeToken(made)
        expect(text).toMatch(/^pj1_[\w-]{80,220}$/)
        expect(readToken(` ${text}\n`)).toEqual(made)
      }),
    )
  })

  test('that is not whole is refused before anybody is asked, and not repeated', () => {
    const { token } = new Place(new Wires(), '192.0.2.1').invitations.invite({}, 'ann')
    const damaged = [
      '',
      'pj1_',
      token.slice(4),
      token.slice(0, -1),
      token.slice(0, 80),
      `${token}A`,
      token.replace(/.$/, (last) => (last === 'A' ? 'B' : 'A')),
      `${token.slice(0, 40)}${token[40] === 'x' ? 'y' : 'x'}${token.slice(41)}`,
      `pj1_${'A'.repeat(1_000)}`,
      token.replace('pj1_', 'pj2_'),
    ]
    for (const text of damaged) {
      const { code, message, advice } = refusal(() => readToken(text))
      expect(code).toBe('invalid')
      expect(advice).toContain('Copy all of it')
      if (text.length > 20) expect(message).not.toContain(text.slice(8, 20))
    }
  })
})

describe('whoever is not let in is told why, and the token stays good', () => {
  test('a clock that is 11 s off', async () => {
    for (const offMs of [11_000, -11_000]) {
      const clock = new ManualClock(Date.UTC(2026, 10, 22, 12) + offMs)
      const { a, b } = await pair({ clock })
      const { token, id } = a.invitations.invite({}, 'ann')
      const { field, message, advice } = await refused(b.join(token))
      expect(field).toBe('clock')
      expect(message).toContain(`11 s ${offMs > 0 ? 'ahead of' : 'behind'}`)
      expect(advice).toContain('Fix NTP')
      expect(stateOf(a, id)).toBe('open')
      expect(a.roster.members()).toHaveLength(1)
    }
    const { a, b } = await pair({ clock: new ManualClock(Date.UTC(2026, 10, 22, 12) + 9_000) })
    await b.join(a.invitations.invite({}, 'ann').token)
  })

  test('a node that no datagram reaches', async () => {
    const { wires, a, b } = await pair()
    wires.deaf.add('192.0.2.2')
    const { token, id } = a.invitations.invite({}, 'ann')
    const joining = refused(b.join(token))
    for (let round = 0; round < 200; round += 1) await Promise.resolve()
    a.clock.advance(10_000)
    const { message, advice } = await joining
    expect(message).toContain('192.0.2.2:7946 (UDP: no answer)')
    expect(advice).toContain('7946')
    expect(stateOf(a, id)).toBe('open')
    expect(a.roster.members()).toHaveLength(1)
    wires.deaf.clear()
    await b.join(token)
  })

  test('what is known beforehand, without looking for the node first', async () => {
    const wires = new Wires()
    const a = await new Place(wires, '192.0.2.1').open()
    const { token } = a.invitations.invite({}, 'ann')
    await new Place(wires, '192.0.2.2').join(token)
    for (const host of ['192.0.2.3', '192.0.2.4']) wires.deaf.add(host)
    const late = await refused(new Place(wires, '192.0.2.3').join(token))
    expect(late.message).toContain('used already')
    const twin = new Place(wires, '192.0.2.4', { node: `${a.self.node.slice(0, 8)}ffffffff` })
    const { message } = await refused(twin.join(a.invitations.invite({}, 'ann').token))
    expect(message).toContain('too much like')
  })

  test('a token that is revoked while its node is being looked for', async () => {
    const { wires, a, b } = await pair()
    wires.deaf.add('192.0.2.2')
    const { token, id } = a.invitations.invite({}, 'ann')
    const joining = refused(b.join(token))
    for (let round = 0; round < 200; round += 1) await Promise.resolve()
    a.invitations.revoke(id, 'ann')
    wires.deaf.clear()
    a.clock.advance(500)
    expect((await joining).message).toContain('was revoked')
    expect(a.roster.members()).toHaveLength(1)
  })

  test('a node that claims a key which it does not hold', async () => {
    const { a, b } = await pair()
    const { sign, exchange } = b.self.keys
    const keys = { exchange, sign: { secret: sign.secret, public: a.self.keys.sign.public } }
    const { token, id } = a.invitations.invite({}, 'ann')
    const claimed = b.join(token, { self: { ...b.self, keys } })
    expect((await refused(claimed)).message).toContain('cannot be read')
    expect(stateOf(a, id)).toBe('open')
  })

  test('a node in whose place another program answers whatever it is asked', async () => {
    const { wires, a, b } = await pair()
    wires.pipes.route = (from, to) =>
      from === '192.0.2.1' && to === '192.0.2.2:7946' ? '192.0.2.5:7946' : to
    await wires.at('192.0.2.5').listen({ host: '192.0.2.5', port: PORT }, (stream) => ({
      received: () => stream.write(new Uint8Array(16).fill(7)),
      drained: () => {},
      closed: () => {},
    }))
    const { message } = await refused(b.join(a.invitations.invite({}, 'ann').token))
    expect(message).toContain('TCP: another program answers')
  })

  test('and a node that joins answers no stranger', async () => {
    const { wires, a, b } = await pair()
    wires.deaf.add('192.0.2.2')
    const joining = refused(b.join(a.invitations.invite({}, 'ann').token))
    for (let round = 0; round < 200; round += 1) await Promise.resolve()
    const probe = Buffer.concat([Buffer.from('PSTP'), Buffer.alloc(32, 9)])
    for (const bytes of [probe, Buffer.alloc(64, 9), Buffer.alloc(36)]) {
      const stranger = wires.pipes.stranger('203.0.113.5', { host: '192.0.2.2', port: PORT })
      await stranger.opened
      stranger.write(new Uint8Array(bytes))
      expect(stranger.got()).toHaveLength(0)
      expect(stranger.closed()).not.toBeNull()
    }
    a.clock.advance(10_000)
    await joining
  })

  test('a node behind a port that is closed, or is somebody else’s', async () => {
    const { wires, a, b } = await pair()
    const { token, id } = a.invitations.invite({}, 'ann')
    // The port is that of a neighbour, which does not answer probes that are not for it.
    const c = await new Place(wires, '192.0.2.3').open()
    wires.pipes.route = (from, to) =>
      from === '192.0.2.1' && to === '192.0.2.2:7946' ? '192.0.2.3:7946' : to
    const strange = await refused(b.join(token))
    expect(strange.message).toContain('TCP: another program answers')
    expect(c.halfOpen).toBe(0)
    wires.pipes.route = (from, to) =>
      from === '192.0.2.1' && to === '192.0.2.2:7946' ? 'nowhere' : to
    expect((await refused(b.join(token))).message).toContain('TCP: connection refused')
    expect(stateOf(a, id)).toBe('open')
  })

  test('but not a node that is reached at an address that it lists', async () => {
    const { wires, a, b } = await pair()
    const second = { host: '198.51.100.7', port: PORT }
    const route = (_: string, to: string) =>
      to === '192.0.2.2:7946' ? 'nowhere' : to === placeOf(second) ? '192.0.2.2:7946' : to
    wires.pipes.route = route
    wires.route = (to) => route('', to)
    const peers = [
      { host: '127.0.0.1', port: 9 },
      { ...second, port: 0 },
    ]
    const facts = { ...b.facts(), peer: peers }
    const joining = b.join(a.invitations.invite({}, 'ann').token, { facts })
    for (let round = 0; round < 200; round += 1) await Promise.resolve()
    a.clock.advance(10_000)
    await joining
    const { peer } = a.roster.get(b.self.node) ?? {}
    // The one that works, then what only the node itself believes in.
    expect(peer).toEqual([second, { host: '127.0.0.1', port: 9 }])
  })

  test('a node whose id begins like that of a member (K13)', async () => {
    const wires = new Wires()
    const a = await new Place(wires, '192.0.2.1').open()
    const b = new Place(wires, '192.0.2.2', { node: `${a.self.node.slice(0, 8)}ffffffff` })
    const { token, id } = a.invitations.invite({}, 'ann')
    const { message, advice } = await refused(b.join(token))
    expect(message).toContain(b.self.node)
    expect(advice).toContain('--new-identity')
    expect(stateOf(a, id)).toBe('open')
  })

  test('a node that was removed, or has left', async () => {
    for (const standing of ['evict', 'markLeft'] as const) {
      const { a, b } = await pair()
      await b.join(a.invitations.invite({}, 'ann').token)
      a.roster[standing](b.self.node, 'ann')
      const { token } = a.invitations.invite({}, 'ann')
      const { message, advice } = await refused(
        joinCluster(token, b.options({ clusterId: '0'.repeat(16), members: 1 }), b.deps),
      )
      expect(message).toContain(standing === 'evict' ? 'was removed' : 'has left')
      expect(advice).toContain('--new-identity')
    }
  })

  test('a node of another version', async () => {
    const { a, b } = await pair()
    const { token, id } = a.invitations.invite({}, 'ann')
    const { message, advice } = await refused(b.join(token, { protocol: { min: 7, max: 9 } }))
    expect(message).toContain('protocol 1 to 2')
    expect(advice).toContain('Upgrade')
    expect(stateOf(a, id)).toBe('open')
  })

  test('a node that is a member already, here or elsewhere, or has settings of its own', async () => {
    const { a, b } = await pair()
    const { token } = a.invitations.invite({ uses: 3 }, 'ann')
    const own = { operators: 2, domains: 1 }
    const mine = await refused(b.join(token, { own }))
    expect(mine.message).toContain('2 operators, 1 domain')
    expect(mine.advice).toContain('--discard')
    expect((await refused(b.join(token, { members: 3 }))).advice).toContain('postern leave')
    await b.join(token, { own, discard: true })
    expect((await refused(b.join(token))).message).toContain('already a member of the cluster of')
  })

  test('when nobody answers', async () => {
    const wires = new Wires()
    const a = new Place(wires, '192.0.2.1')
    const { token } = a.invitations.invite({}, 'ann')
    const { code, message, advice } = await refused(new Place(wires, '192.0.2.2').join(token))
    expect(code).toBe('unavailable')
    expect(message).toContain('192.0.2.1:7946')
    expect(advice).toContain('TCP and UDP')
  })

  test('when its own port is taken', async () => {
    const { a, b } = await pair()
    await b.open()
    const { token } = a.invitations.invite({}, 'ann')
    expect((await refused(b.join(token))).field).toBe('peer')
  })
})

describe('whatever the other side says', () => {
  const junk: readonly Uint8Array[] = [
    '',
    '[]',
    'null',
    '{}',
    '{"rows":7}',
    '{"rows":[7]}',
    '{"issuer":"x"}',
    '['.repeat(9_000),
    JSON.stringify({ node: '0'.repeat(16), sign: 7, signature: 'AAAA', port: 1, probeKey: '' }),
    JSON.stringify({ issuer: '0'.repeat(16), name: 'x', rows: [] }),
    JSON.stringify({ message: 5, advice: 5, code: 'x' }),
    JSON.stringify({ rows: [{ kind: 'member', key: 'x', state: { shape: 'cell' } }] }),
  ].map((text) => new TextEncoder().encode(text))

  test('the issuer refuses a request that is none, and goes on', async () => {
    const { a, b } = await pair()
    const { token } = a.invitations.invite({ uses: 99 }, 'ann')
    const { clusterId, id, secret, issuer } = readToken(token)
    for (const body of [...junk, new Uint8Array(400_000), b.deps.random.bytes(999)]) {
      const channel = await dialSecure(
        b.deps.network,
        { host: '192.0.2.1', port: PORT },
        {
          own: b.self.keys.exchange,
          clusterId,
          protocol: PROTOCOL,
          parallelCrypto: false,
          purpose: {
            pattern: 'IKpsk2',
            tokenId: new Uint8Array(Buffer.from(id, 'hex')),
            psk: pskOf(clusterId, secret),
          },
          peer: issuer,
          greeting: new Uint8Array(0),
        },
        b.deps,
      )
      const said: number[] = []
      channel.start({ message: (type) => said.push(type), closed: () => {} })
      channel.send(1, body)
      await eventually(() => said.length > 0)
      expect(said).toEqual([4])
      for (const { clock } of [a, b]) clock.advance(1_000)
    }
    await b.join(token)
  })

  test('the new node changes nothing of its own for an answer that is none', async () => {
    const { a } = await pair()
    const { token } = a.invitations.invite({ uses: 99 }, 'ann')
    const evil = await new Place(new Wires(), '192.0.2.9').open()
    for (const body of junk) {
      for (const type of [2, 3, 4, 63]) {
        const wires = new Wires()
        const c = new Place(wires, '192.0.2.3')
        const gate = new Gate(
          {
            own: a.self.keys.exchange,
            clusterId: a.clusterId,
            protocol: PROTOCOL,
            parallelCrypto: false,
            greet: () => null,
            opened: () => {},
            onJoin: {
              pskOf: (tokenId) => a.invitations.pskOf(tokenId),
              failed: () => {},
              opened: (channel) => {
                channel.start({ message: () => {}, closed: () => {} })
                channel.send(type, body)
                const said = { issuer: a.self.node, name: 'x' }
                channel.send(3, new TextEncoder().encode(JSON.stringify(said)))
                channel.end()
              },
            },
          },
          evil.deps,
        )
        await wires
          .at('192.0.2.1')
          .listen({ host: '192.0.2.1', port: PORT }, (stream) => gate.accept(stream))
        const { code } = await refused(joinCluster(token, c.options(), c.deps))
        expect(code).toBe('unavailable')
      }
    }
  })
})

describe('a man in the middle', () => {
  test('with a key of his own opens nothing, and is named', async () => {
    const { wires, a, b } = await pair()
    const eve = new Place(wires, '192.0.2.66')
    const { token, id } = a.invitations.invite({}, 'ann')
    // He is at the address of the issuer, and answers as a node would.
    wires.pipes.route = (from, to) =>
      from === '192.0.2.2' && to === '192.0.2.1:7946' ? '192.0.2.66:7946' : to
    await eve.deps.network.listen({ host: '192.0.2.66', port: PORT }, (stream) => ({
      received: () => stream.write(eve.deps.random.bytes(96)),
      drained: () => {},
      closed: () => {},
    }))
    const { message, advice } = await refused(b.join(token))
    expect(message).toContain('is not the node that issued the token')
    expect(advice).toContain('in between')
    expect(stateOf(a, id)).toBe('open')
  })

  test('as a node of his own hangs up', async () => {
    const { wires, a, b } = await pair()
    await new Place(wires, '192.0.2.66').open()
    const { token } = a.invitations.invite({}, 'ann')
    wires.pipes.route = (from, to) =>
      from === '192.0.2.2' && to === '192.0.2.1:7946' ? '192.0.2.66:7946' : to
    expect((await refused(b.join(token))).message).toContain('does not take this token')
  })

  test('changes no bit of it', async () => {
    for (let at = 0; at < 24; at += 1) {
      const { wires, a, b } = await pair()
      const { token } = a.invitations.invite({}, 'ann')
      let count = 0
      wires.pipes.change = ({ bytes }) => {
        count += 1
        if (count - 1 !== at % 6) return bytes
        const place = (at * 37) % bytes.length
        bytes[place] = (bytes[place] ?? 0) ^ (1 << (at % 8))
        return bytes
      }
      const end = b.join(token).then(
        () => 'joined',
        (error: unknown) => error,
      )
      await eventually(() => count > at % 6)
      for (let round = 0; round < 200; round += 1) await Promise.resolve()
      for (const clock of [a.clock, b.clock]) clock.advance(30_000)
      const outcome = await end
      // A probe that was changed is one that is lost; nothing else goes on.
      if (outcome !== 'joined') expect(outcome).toBeInstanceOf(RefusalError)
      else expect(b.names()).toHaveLength(2)
    }
  })
})
