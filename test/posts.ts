/** Nodes as far as held mail goes, and a network between them that a test cuts. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Author } from '../src/admin/contract.ts'
import { type HeldPeers, heldPart } from '../src/admin/held.ts'
import type { HeldDecisions } from '../src/admin/held-decisions.ts'
import { HeldHolders } from '../src/admin/held-holders.ts'
import { RefusalError, StoreError } from '../src/base/errors.ts'
import { type MessageId, MessageIds, type NodeId, newNodeId } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { SeededRandom } from '../src/base/random.ts'
import type { CallAnswer } from '../src/cluster/contract.ts'
import { patienceOf } from '../src/cluster/patience.ts'
import { ranked } from '../src/cluster/rank.ts'
import { LiveConfig } from '../src/config/live.ts'
import type { Preview } from '../src/mail/inspect/contract.ts'
import { Keeper } from '../src/mail/quarantine/keep.ts'
import type { HeldAbsence, HeldNodes } from '../src/mail/quarantine/nodes.ts'
import type { NodeName } from '../src/message/rows.ts'
import type { HeldBytes } from '../src/store/bodies.ts'
import type { HeldMail } from '../src/store/held-mail.ts'
import { type Databases, openDatabases } from '../src/store/open.ts'
import type { Operators } from '../src/store/operators.ts'
import { Quarantine } from '../src/store/quarantine.ts'
import { Replica } from '../src/store/replica.ts'
import { Trace } from '../src/store/trace.ts'
import { ManualClock } from './clock.ts'

export const RUIZ: Author = { name: 'ruiz', role: 'admin' }
export const NAGY: Author = { name: 'nagy', role: 'admin' }
export const DAY_MS = 86_400_000
const PATIENCE = patienceOf(1)
let starts = 1_000

type Act = (value: unknown, from: NodeId) => Promise<CallAnswer>

/** What the network between the nodes does. */
export class Wires {
  readonly nodes: Post[] = []
  readonly cut = new Set<string>()
  /** Of a node, as all others find it; without an entry by what is cut and down. */
  /** They live, and mean to leave. */
  readonly leaving = new Set<NodeId>()
  readonly absences = new Map<NodeId, HeldAbsence>()
  asks = 0
  /** The question arrives and its answer does not. */
  losesAnswers = false
  /** Nobody has heard those that are cut off for longer than a claim waits. */
  isLongCut = false

  names = (): readonly NodeName[] => this.nodes.map(({ node }) => node)

  nodesOf(from: Post): HeldNodes & HeldPeers {
    const find = (id: NodeId) => this.nodes.find(({ node }) => node.id === id)
    const reach = (id: NodeId): Post => {
      const to = find(id)
      if (to !== undefined && !to.isDown && !this.isCut(from, to)) return to
      throw away()
    }
    const act = async (id: NodeId, topic: string, value: unknown): Promise<CallAnswer> => {
      await Promise.resolve()
      const answer = reach(id).answers.get(topic)
      if (answer === undefined) throw new Error(`nobody answers ${topic}`)
      return await answer(carried(value), from.node.id)
    }
    const inReach = () =>
      this.nodes.filter(
        (one) =>
          one !== from && !one.isDown && !this.isCut(from, one) && !this.leaving.has(one.node.id),
      )
    return {
      ask: async (id, topic, value) => {
        this.asks += 1
        const answer = await act(id, topic, value)
        if (this.losesAnswers) throw away()
        return carried(answer.value)
      },
      fetch: async (id, topic, value) => {
        const answer = await act(id, topic, value)
        if (answer.kind !== 'stream') throw new Error('no stream')
        return { value: carried(answer.value), bytes: answer.bytes }
      },
      absence: (id) => {
        const said = this.absences.get(id)
        if (said !== undefined) return said
        const to = find(id)
        const isHere = to !== undefined && !to.isDown && !this.isCut(from, to)
        return {
          standing: isHere ? 'here' : 'silent',
          refusedSinceMs: null,
          lastContactMs: from.clock.wallMs() - 1_000,
        }
      },
      staying: () => inReach().map(({ node }) => node.id),
      candidates: (id) =>
        ranked(
          id,
          inReach().map(({ node }) => node.id),
        ),
      ranked,
      hasReadAll: () => true,
      taken: (nodes) =>
        this.#taken(
          from,
          nodes.flatMap((id) => find(id) ?? []),
        ),
      describe: () => 'has not answered since 12:00',
    }
  }

  /** Who is in reach has it at once; who is not is waited for. */
  async #taken(from: Post, nodes: readonly Post[]): Promise<void> {
    await Promise.resolve()
    const lost = nodes.filter((one) => one.isDown || this.isCut(from, one))
    for (const one of nodes) {
      if (lost.includes(one)) continue
      while (!one.pull(from)) {}
      while (!from.pull(one)) {}
    }
    if (lost.length === 0 || this.isLongCut) return
    await new Promise<void>((resolve) => from.clock.after(PATIENCE.claimMs, resolve))
  }

  isCut(a: Post, b: Post): boolean {
    return this.cut.has(a.node.name) !== this.cut.has(b.node.name)
  }

  /** Whoever is in reach learns what the others know. */
  exchange(): void {
    for (let round = 0; round < 2; round++) {
      for (const reader of this.nodes) {
        for (const from of this.nodes) {
          if (reader === from || reader.isDown || from.isDown || this.isCut(reader, from)) continue
          while (!reader.pull(from)) {}
        }
      }
    }
  }

  /** It died so long ago, and its machine refuses since then. */
  confirm(dead: Post, agoMs: number, contactMs = agoMs + 1_000): void {
    dead.isDown = true
    const nowMs = dead.clock.wallMs()
    this.absences.set(dead.node.id, {
      standing: 'confirmed',
      refusedSinceMs: nowMs - agoMs,
      lastContactMs: nowMs - contactMs,
    })
  }

  remove(gone: Post, standing: 'removed' | 'left' = 'removed'): void {
    const lastContactMs = gone.clock.wallMs() - 60_000
    this.absences.set(gone.node.id, { standing, refusedSinceMs: null, lastContactMs })
  }
}

export function away(): RefusalError {
  return new RefusalError('unavailable', null, 'The node does not answer.', 'Wait.')
}

export function carried(value: unknown): unknown {
  return JSON.parse(JSON.stringify(value))
}

/** Sealed files, as a disk keeps them. */
export class Files {
  readonly kept = new Map<MessageId, { readonly mail: HeldMail; readonly bytes: Buffer }>()

  async write(mail: HeldMail, body: HeldBytes): Promise<void> {
    const pieces: Uint8Array[] = []
    if (body.kind === 'memory') pieces.push(body.bytes)
    else for await (const piece of body.pieces) pieces.push(Uint8Array.from(piece))
    this.keep(mail, Buffer.concat(pieces))
  }

  keep(mail: HeldMail, bytes: Buffer): void {
    this.kept.set(mail.row.id, { mail, bytes })
  }

  async meta(id: MessageId): Promise<HeldMail | null> {
    return this.kept.get(id)?.mail ?? null
  }

  async read(id: MessageId) {
    const found = this.kept.get(id)
    if (found === undefined) return null
    const { mail, bytes } = found
    async function* pieces(): AsyncGenerator<Uint8Array> {
      yield bytes
    }
    return { mail, sizeBytes: bytes.length, pieces: pieces() }
  }

  async remove(id: MessageId): Promise<void> {
    this.kept.delete(id)
  }

  has(id: MessageId): boolean {
    return this.kept.has(id)
  }

  list(): readonly MessageId[] {
    return [...this.kept.keys()]
  }

  /** As they are now; what it gives is put back by `restore`. */
  image(): ReadonlyMap<MessageId, { readonly mail: HeldMail; readonly bytes: Buffer }> {
    return new Map(this.kept)
  }

  restore(image: ReturnType<Files['image']>): void {
    this.kept.clear()
    for (const [id, file] of image) this.kept.set(id, file)
  }
}

/** A node as far as held mail goes; its queue is a list of what went out. */
export class Post {
  readonly node: NodeName
  readonly wires: Wires
  readonly clock: ManualClock
  readonly ids: MessageIds
  readonly directory: string
  readonly bodies = new Files()
  readonly sent: string[] = []
  readonly audited: string[] = []
  readonly answers = new Map<string, Act>()
  isDown = false
  /** The queue refuses, or never answers, before it has the mail or after: what a crash looks like. */
  queue: 'takes' | 'takesLast' | 'refuses' | 'hangs' = 'takes'
  observer!: Observer
  databases!: Databases
  rows!: Replica
  quarantine!: Quarantine
  trace!: Trace
  holders!: HeldHolders
  decisions!: HeldDecisions
  keeper!: Keeper
  held!: ReturnType<typeof heldPart>

  constructor(name: string, wires: Wires, clock: ManualClock) {
    this.wires = wires
    this.clock = clock
    const seed = name.charCodeAt(name.length - 1)
    this.node = { id: newNodeId(new SeededRandom(seed)), name }
    this.ids = new MessageIds(this.node.id, 1, clock)
    this.directory = mkdtempSync(join(tmpdir(), 'postern-'))
    wires.nodes.push(this)
    this.#open()
  }

  #open(): void {
    const { clock, node, wires, bodies } = this
    const observer = new Observer(clock, () => {})
    const random = new SeededRandom(starts++)
    const deps = { clock, observer, random, node, nodes: wires.names }
    this.observer = observer
    this.databases = openDatabases(this.directory, deps)
    this.rows = new Replica(this.databases.state, { clock, random, node: node.id })
    this.quarantine = new Quarantine(this.databases.state, this.rows, deps)
    this.rows.start()
    this.trace = new Trace(this.databases.trace, { ...deps, keepMs: () => 30 * DAY_MS })
    const operators = {
      audit: (author: string, act: string) => {
        this.audited.push(`${author} ${act}`)
      },
    } as unknown as Operators
    const mail = {
      release: (id: MessageId, places: readonly number[]) => this.#release(id, places),
      hasReleased: (id: MessageId, place: number) => this.sent.includes(`${id} ${place}`),
      releasesResumed: () => {},
    }
    const { quarantine, trace } = this
    const nodes = wires.nodesOf(this)
    const parts = { clock, observer, quarantine, trace, bodies, operators, nodes }
    this.holders = new HeldHolders({ ...parts, patience: PATIENCE })
    this.decisions = this.holders.decide({ ...parts, mail })
    this.keeper = new Keeper({
      ...parts,
      deletedMs: PATIENCE.deletedMs,
      live: new LiveConfig(),
      expired: () => {},
    })
    const preview = async (body: { readonly kind: string }) => ({ subject: body.kind }) as Preview
    this.held = heldPart({
      ...parts,
      inspectors: { preview },
      mail: { inspectAgain: () => Promise.reject(new Error('nobody asks')) },
      takeover: this.holders.takeover,
      decisions: this.decisions,
    })
    this.holders.start({ answer: (topic, act) => void this.answers.set(topic, act) })
  }

  async #release(id: MessageId, places: readonly number[]): Promise<void> {
    await Promise.resolve()
    if (this.queue === 'refuses') throw new StoreError('No space left', { remedy: 'retry' })
    if (this.queue === 'hangs') await new Promise(() => {})
    for (const place of places) this.sent.push(`${id} ${place}`)
    if (this.queue === 'takesLast') await new Promise(() => {})
  }

  stop(): void {
    this.isDown = true
    void this.holders.stop()
    void this.keeper.stop()
    this.trace.close()
    this.quarantine.close()
    this.databases.state.close()
    this.databases.trace.close()
  }

  /** As a start of the node does: files, releases that were cut off, what waits. */
  async start(runs = true): Promise<void> {
    this.queue = 'takes'
    this.#open()
    this.isDown = false
    await this.quarantine.rebuild(this.bodies)
    if (runs) this.decisions.start()
    await settled()
  }

  pull(from: Post): boolean {
    const cursor = this.rows.cursor(from.node.id)
    const after = cursor?.generation === from.rows.generation ? cursor.at : 0
    const { rows, upto, final } = from.rows.read(after, this.rows.vector(), 256 * 1024)
    this.rows.apply({
      peer: from.node.id,
      rows: carried(rows) as typeof rows,
      as: {
        kind: 'batch',
        cursor: { generation: from.rows.generation, at: upto },
        vector: final ? new Map(from.rows.vector()) : null,
      },
    })
    return final
  }

  /** `at`: others that got its copy with the mail. */
  async hold(
    recipients = 2,
    text = 'Subject: x\r\n\r\nbody\r\n',
    at: readonly Post[] = [],
  ): Promise<MessageId> {
    const mail = { ...this.#mail(recipients), owner: this.node.id, term: 1 }
    const bytes = { kind: 'memory', bytes: Buffer.from(text) } as const
    await this.bodies.write(mail, bytes)
    for (const other of at) {
      await other.bodies.write(mail, bytes)
      other.holders.share.sealed(mail)
    }
    this.quarantine.add(mail, { holders: at.map(({ node }) => node.id), perhaps: [] })
    this.quarantine.flush()
    return mail.row.id
  }

  #mail(recipients: number): HeldMail {
    const id = this.ids.next()
    const addresses = Array.from({ length: recipients }, (_, place) => `r${place}@example.com`)
    return {
      row: {
        id,
        sender: 'a@sender.example',
        recipients: addresses,
        subject: 'Held subject',
        from: null,
        clientIp: '192.0.2.1',
        sizeBytes: 4_000,
        score: 10,
        rules: ['GTUBE'],
        findings: [{ rule: 'GTUBE', score: 10, evidence: 'The test text stands in it.' }],
        unknowns: [],
        heldMs: this.clock.wallMs(),
        expiresMs: this.clock.wallMs() + 30 * DAY_MS,
      },
      envelope: {
        id,
        receivedMs: this.clock.wallMs(),
        clientIp: '192.0.2.1',
        greeting: 'sender.example',
        protocol: 'ESMTP',
        tls: null,
        outbound: false,
        sender: 'a@sender.example',
        eightBit: false,
        smtpUtf8: false,
        ret: null,
        envid: null,
        recipients: addresses.map((address) => ({ address, notify: null, orcpt: null })),
      },
      places: addresses.map((_, place) => place),
      prepend: '',
    }
  }

  /** All that the list and the pages show. */
  shown(): string {
    const all = (table: string, order: string) =>
      this.databases.state.sqlite.query(`SELECT * FROM ${table} ORDER BY ${order}`).all()
    return JSON.stringify([
      all('held', 'id'),
      all('held_copy', 'id, place'),
      all('held_pending', 'key'),
    ])
  }
}

const opened: Wires[] = []

export function posts(count: number): { readonly wires: Wires; readonly all: readonly Post[] } {
  const wires = new Wires()
  const clock = new ManualClock()
  opened.push(wires)
  const all = Array.from({ length: count }, (_, index) => new Post(`mx${index + 1}`, wires, clock))
  for (const one of all) one.decisions.start()
  return { wires, all }
}

export function two(): { readonly wires: Wires; readonly a: Post; readonly b: Post } {
  const { wires, all } = posts(2)
  const [a, b] = all as readonly [Post, Post]
  return { wires, a, b }
}

export function three(): {
  readonly wires: Wires
  readonly a: Post
  readonly b: Post
  readonly c: Post
} {
  const { wires, all } = posts(3)
  const [a, b, c] = all as readonly [Post, Post, Post]
  return { wires, a, b, c }
}

/** After each test. */
export function closePosts(): void {
  for (const { nodes } of opened.splice(0)) {
    for (const one of nodes) {
      try {
        one.stop()
      } catch {
        // It was stopped by its test.
      }
      rmSync(one.directory, { recursive: true, force: true })
    }
  }
}

/** Lets everything run that only waits for promises. */
export async function settled(): Promise<void> {
  for (let round = 0; round < 500; round++) await Promise.resolve()
}

/** So much time passes, and what falls due in it runs; rows go to whoever is in reach. */
export async function passed(wires: Wires, ms: number, stepMs = 5_000): Promise<void> {
  const clock = wires.nodes[0]?.clock
  for (let done = 0; done < ms; done += stepMs) {
    clock?.advance(Math.min(stepMs, ms - done))
    await settled()
    wires.exchange()
    await settled()
  }
}
