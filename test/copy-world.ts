/**
 * Nodes that keep copies of each other's mail: the real spool, queue and copies over links, disks
 * and time that a test moves. A disk knows what a power cut would leave of it.
 */
import type { Disk } from '../src/base/files.ts'
import { type MessageId, MessageIds, type NodeId, newSpoolId } from '../src/base/ids.ts'
import { PIECE_BYTES } from '../src/base/limits.ts'
import type { Liveness, Member, Standing } from '../src/cluster/contract.ts'
import { MailCopies } from '../src/cluster/mail-copies.ts'
import { patienceOf } from '../src/cluster/patience.ts'
import { NO_FACTS } from '../src/message/verdict.ts'
import { readBody } from '../src/store/extents.ts'
import { Queue } from '../src/store/queue.ts'
import { freshRecipient, type Message, type NewCommit } from '../src/store/queued.ts'
import type { Spool } from '../src/store/spool.ts'
import { Mesh, type MeshNode, type MeshOptions } from './mesh.ts'

/** Small ones: a disk here is written ahead in memory. */
const SEGMENT_BYTES = 256 * 1024
const PATIENCE = patienceOf(1)

type Write = { readonly at: number; readonly before: Buffer }
type File = { memory: Buffer; length: number; unsynced: Write[] }

/** Files in memory; writes and syncs take their time on the clock of the mesh. */
class MeshDisk {
  writeMs = 0.05
  syncMs = 1
  free = 0.5
  readonly #mesh: Mesh
  readonly #files = new Map<string, File>()
  readonly #open = new Map<number, File>()
  #fd = 2
  #run = 0

  constructor(mesh: Mesh) {
    this.#mesh = mesh
  }

  /** The machine loses its power: all that was not synced is gone. */
  cut(): void {
    this.#run += 1
    for (const file of this.#files.values()) {
      for (const { at, before } of file.unsynced.reverse()) before.copy(file.memory, at)
      file.unsynced = []
    }
  }

  /** As a process sees it, until the next one starts or the power goes. */
  start(): Disk {
    this.#run += 1
    return this.seam()
  }

  seam(): Disk {
    const run = this.#run
    const after = (ms: number, act: () => void): void => {
      this.#mesh.clock.after(ms, () => {
        if (this.#run === run) act()
      })
    }
    const file = (fd: number): File => this.#open.get(fd) as File
    const there = (path: string): File => {
      const found = this.#files.get(path)
      if (found === undefined) throw Object.assign(new Error(path), { code: 'ENOENT' })
      return found
    }
    return {
      write: (fd, buffers, position, done) => {
        const bytes = Buffer.concat(buffers)
        after(this.writeMs, () => {
          this.#write(file(fd), bytes, position)
          done(null, bytes.length)
        })
      },
      sync: (fd, done) => {
        const covered = new Set(file(fd).unsynced)
        after(this.syncMs, () => {
          file(fd).unsynced = file(fd).unsynced.filter((write) => !covered.has(write))
          done(null)
        })
      },
      read: (path, offset, length) =>
        new Promise((resolve) => {
          after(this.writeMs, () =>
            resolve(Uint8Array.from(bytesIn(there(path)).subarray(offset, offset + length))),
          )
        }),
      syncNames: (_, done) => after(this.syncMs, () => done(null)),
      list: (directory) => [...this.#files.keys()].map((path) => path.slice(directory.length + 1)),
      open: (path, how) => {
        if (how === 'new')
          this.#files.set(path, { memory: Buffer.alloc(0), length: 0, unsynced: [] })
        this.#fd += 1
        this.#open.set(this.#fd, there(path))
        return this.#fd
      },
      close: (fd) => this.#open.delete(fd),
      load: (path, room) => room.subarray(0, bytesIn(there(path)).copy(room)),
      size: (path) => there(path).length,
      writeNow: (fd, bytes, position) => this.#write(file(fd), Buffer.from(bytes), position),
      remove: (path) => this.#files.delete(path),
    }
  }

  #write(file: File, bytes: Buffer, at: number): void {
    const end = at + bytes.length
    if (end > file.memory.length) {
      const larger = Buffer.alloc(Math.max(end, 2 * file.memory.length))
      file.memory.copy(larger)
      file.memory = larger
    }
    file.length = Math.max(file.length, end)
    file.unsynced.push({ at, before: Buffer.from(file.memory.subarray(at, end)) })
    bytes.copy(file.memory, at)
  }
}

function bytesIn({ memory, length }: File): Buffer {
  return memory.subarray(0, length)
}

/** One node with its mail. */
export class CopyNode {
  readonly mesh: MeshNode
  readonly disk: MeshDisk
  readonly #world: CopyWorld
  #queue: Queue | null = null
  #spool: Spool | null = null
  #copies: MailCopies | null = null
  #ids: MessageIds
  refusal: string | null = null
  rule: 'prefer' | 'require' = 'prefer'
  readonly stale: string[] = []
  readonly listeners: (() => void)[] = []
  readonly deadSince = new Map<NodeId, number>()

  constructor(world: CopyWorld, mesh: MeshNode) {
    this.#world = world
    this.mesh = mesh
    this.disk = new MeshDisk(world.mesh)
    this.#ids = new MessageIds(mesh.id, 1, mesh)
  }

  get id(): NodeId {
    return this.mesh.id
  }

  get queue(): Queue {
    return this.#queue as Queue
  }

  get spool(): Spool {
    return this.#spool as Spool
  }

  get copies(): MailCopies {
    return this.#copies as MailCopies
  }

  async start(): Promise<void> {
    const { mesh } = this
    if (!mesh.isUp) mesh.start()
    const opening = Queue.open(
      {
        dir: 'spool',
        spoolId: newSpoolId(this.#world.mesh.random),
        clock: mesh,
        observer: mesh.observer,
        freeSpace: () => ({ freeBytes: 1e12 * this.disk.free, totalBytes: 1e12 }),
        segmentBytes: this.#world.segmentBytes,
        disk: this.disk.start(),
        onFailure: (error) => {
          throw error
        },
      },
      { clock: mesh, observer: mesh.observer, node: mesh.id, copies: () => this.rule },
    )
    await this.#world.during(opening)
    const { queue, spool } = await opening
    this.#queue = queue
    this.#spool = spool
    this.#copies = new MailCopies({
      clock: mesh,
      observer: mesh.observer,
      patience: PATIENCE,
      store: queue,
      links: mesh.links,
      roster: this.#roster(),
      members: this.#members(),
      sync: mesh.sync,
      mayTake: () => this.refusal,
      onStale: async (id, term, owner) => {
        this.stale.push(`${id} ${term} ${owner}`)
      },
    })
    queue.mirror = this.#copies.mirror
    mesh.links.onClose(({ peer }) => this.deadSince.set(peer, mesh.monoMs()))
    this.say()
  }

  /** Its report goes out with the next beat, which is told to come. */
  say(): void {
    this.mesh.report = { ...this.mesh.report, takesCopies: this.copies.takesCopies }
  }

  /** The process is gone; with `power` what was not synced is, too. */
  crash(power = true): void {
    this.mesh.crash()
    if (power) this.disk.cut()
    else this.disk.start()
    this.copies.close()
  }

  #roster() {
    const { roster } = this.mesh
    const { standings, draining } = this.#world
    const view = (member: Member): Member => ({
      ...member,
      standing: standings.get(member.node) ?? 'member',
      drain: draining.has(member.node) ? 'draining' : 'accepting',
    })
    const members = () => roster.members().map(view)
    return {
      ...roster,
      members,
      peers: () => members().filter((one) => one.node !== this.id && one.standing === 'member'),
      get: (node: NodeId) => members().find((one) => one.node === node) ?? null,
      onChange: (listener: () => void) => this.listeners.push(listener),
    }
  }

  #members() {
    const { links } = this.mesh
    const get = (node: NodeId): Liveness => {
      const isUp = links.open.has(node)
      const sinceMono = isUp ? 0 : (this.deadSince.get(node) ?? 0)
      const life = isUp ? 'alive' : 'dead'
      const how = { heardMono: 0, ackedBoot: 0, udp: true, tcp: isUp, udpRoundTripMs: null }
      return { node, life, sinceMono, ...how }
    }
    return {
      get,
      all: () => [],
      isUsable: (node: NodeId) => links.open.has(node),
      onChange: () => {},
    }
  }

  nextId(): MessageId {
    return this.#ids.next()
  }

  /** A body that arrives in pieces, then its dot. Rejects as the queue does. */
  async accept(body: Uint8Array, options: AcceptOptions = {}): Promise<Message> {
    const { pauseMs = 0, id = this.nextId() } = options
    const draft = this.queue.draft(id)
    const isWhole = body.length <= PIECE_BYTES
    for (let at = 0; at < body.length; at += PIECE_BYTES) {
      draft.add(body.subarray(at, at + PIECE_BYTES))
      if (pauseMs > 0) await new Promise<void>((run) => this.mesh.after(pauseMs, run))
    }
    return this.queue.commit(draft, newCommit(id, body, options), isWhole ? body : null)
  }

  /** The body of a copy as it can be read there. */
  async bodyOf(copy: Message): Promise<Uint8Array> {
    const parts: Uint8Array[] = []
    const disk = this.disk.seam()
    const reading = (async () => {
      for await (const part of readBody(copy.body(), disk)) parts.push(part)
    })()
    await this.#world.during(reading)
    return new Uint8Array(Buffer.concat(parts))
  }
}

type AcceptOptions = {
  readonly id?: MessageId
  readonly recipients?: number
  readonly pauseMs?: number
}

function newCommit(id: MessageId, body: Uint8Array, { recipients = 1 }: AcceptOptions): NewCommit {
  return {
    envelope: {
      id,
      receivedMs: 0,
      clientIp: '192.0.2.7',
      greeting: 'client.example',
      protocol: 'ESMTP',
      tls: null,
      outbound: false,
      sender: 'a@sender.example',
      eightBit: false,
      smtpUtf8: false,
      ret: null,
      envid: null,
      recipients: Array.from({ length: recipients }, (_, index) => ({
        address: `recipient-${index}@destination.example`,
        notify: null,
        orcpt: null,
      })),
    },
    prepend: 'Received: x\r\n',
    sizeBytes: body.length,
    sha256: new Bun.CryptoHasher('sha256').update(body).digest('hex'),
    expiresMs: 432_000_000,
    facts: NO_FACTS,
    verdicts: [],
    judgement: null,
    dsn: false,
    heldMoved: false,
    recipients: Array.from({ length: recipients }, () => freshRecipient('queued')),
  }
}

type WorldOptions = MeshOptions & { readonly segmentBytes?: number }

export class CopyWorld {
  readonly mesh: Mesh
  readonly nodes: CopyNode[] = []
  readonly standings = new Map<NodeId, Standing>()
  readonly draining = new Set<NodeId>()

  readonly segmentBytes: number

  constructor({ segmentBytes = SEGMENT_BYTES, ...options }: WorldOptions = {}) {
    this.mesh = new Mesh(options)
    this.segmentBytes = segmentBytes
  }

  /** `count` nodes that know each other, take copies and have said so. */
  static async of(count: number, options: WorldOptions = {}): Promise<CopyWorld> {
    const world = new CopyWorld(options)
    await world.add(count)
    return world
  }

  async add(count: number): Promise<void> {
    for (const mesh of this.mesh.add(count)) {
      const node = new CopyNode(this, mesh)
      this.nodes.push(node)
      await node.start()
    }
    this.mesh.join()
    this.changed()
    await this.pass(3_000)
  }

  node(id: NodeId): CopyNode {
    return this.nodes.find((node) => node.id === id) as CopyNode
  }

  /** The node that a copy of `id` goes to first from `owner`, then the next one. */
  order(owner: CopyNode, id: MessageId): readonly CopyNode[] {
    const first = owner.copies.candidates.first(id, () => false)
    const second = owner.copies.candidates.first(id, (node) => node === first)
    return [first, second].flatMap((node) => (node === null ? [] : [this.node(node)]))
  }

  changed(): void {
    for (const node of this.nodes) for (const listener of node.listeners) listener()
  }

  async pass(ms: number): Promise<void> {
    await this.mesh.runAsync(ms)
  }

  /** Lets time pass until `promise` is settled, at most a minute. */
  async during(promise: Promise<unknown>): Promise<void> {
    let isOver = false
    promise.then(
      () => {
        isOver = true
      },
      () => {
        isOver = true
      },
    )
    for (let step = 0; step < 60_000 && !isOver; step += 1) await this.pass(1)
  }

  /** As `during`, and gives what came of it. */
  async until<Value>(promise: Promise<Value>): Promise<Value> {
    await this.during(promise)
    return promise
  }
}

export function bytesOf(length: number, seed = 7): Uint8Array {
  return Uint8Array.from({ length }, (_, index) => (index * 31 + (index >> 8) + seed) & 255)
}
