/**
 * A simulated machine and the runs of its node: a disk and a clock that outlive the process, and
 * a process that holds the replicated rows and all of the cluster's parts, as a real one does.
 */
import { RefusalError, StoreError } from '../../src/base/errors.ts'
import { type NodeId, newNodeId, newSpoolId, type SpoolId } from '../../src/base/ids.ts'
import { type EventName, type Fields, Observer } from '../../src/base/observe.ts'
import type { Random } from '../../src/base/random.ts'
import { Cluster } from '../../src/cluster/cluster.ts'
import type {
  ClusterDeps,
  Network,
  NodeKeys,
  NodeReport,
  PeerAddress,
  Self,
} from '../../src/cluster/contract.ts'
import { clusterIdOf, type Joined, publicKeys } from '../../src/cluster/identity.ts'
import { INVITATION_KIND } from '../../src/cluster/invite.ts'
import { joinCluster } from '../../src/cluster/join.ts'
import { newKeys } from '../../src/cluster/keys.ts'
import { PROTOCOL } from '../../src/cluster/link.ts'
import { patienceOf } from '../../src/cluster/patience.ts'
import { type Applicant, MEMBER_KIND } from '../../src/cluster/roster.ts'
import type { Vector } from '../../src/config/merge.ts'
import type { StoreDatabase } from '../../src/store/db.ts'
import type { Applied, Incoming } from '../../src/store/feed.ts'
import { IssuedTokens } from '../../src/store/invitations.ts'
import { nodeName } from '../../src/store/names.ts'
import { Replica } from '../../src/store/replica.ts'
import type { SharedRows } from '../../src/store/shared.ts'
import { Files } from '../posts.ts'
import type { Dice } from './dice.ts'
import { type Image, SimDisk } from './disk.ts'
import { type Effect, SimHeld } from './held.ts'
import { hearMail, type MailSetting, SimMail } from './mail.ts'
import type { Fabric } from './network.ts'
import { Memory, type Oracle, type Watched } from './oracle.ts'
import { SpoolDisk, type SpoolImage } from './spool-disk.ts'
import { type MachineTime, SimClock, SimProcess, type World } from './world.ts'

/** Others look at a node that is down so often at least. */
const BRIEF_MS = 1_000

/** Seams at which a mutant takes the place of a part. */
export type Mutant = {
  readonly rows?: (rows: SharedRows, node: SimNode) => SharedRows
  readonly random?: (random: Random, node: SimNode) => Random
  readonly network?: (network: Network, node: SimNode) => Network
  readonly issued?: (issued: IssuedTokens, node: SimNode) => IssuedTokens
}

/** What all nodes of a simulation have in common. */
export type Setting = {
  readonly world: World
  readonly fabric: Fabric
  readonly oracle: Oracle
  readonly mutant: Mutant
  /** What a feed reads at most at once. */
  batchBytes: number
  /** Of own writes, 0..1: not pushed, so that they wait for a batch. */
  readonly lostPushes: number
  /** By id; with a clone the original. */
  readonly nodeOf: (id: NodeId) => SimNode | null
  readonly nodeOfWriter: Map<string, NodeId>
  /** A recipient gets his held mail from a node. */
  readonly onReleased: (node: SimNode, copy: string) => void
  /** Nodes take and deliver mail. */
  readonly mail?: MailSetting
}

/** Kinds whose rows the oracle follows. */
export const KINDS = [
  'setting',
  'domain',
  'allow',
  'block',
  'operator',
  'held',
  'pending',
  MEMBER_KIND,
  INVITATION_KIND,
]
export const FUTURE_KIND = 'future-thing'
export const PORT = 2_525

/** A machine as it was at one instant. */
export type Snapshot = Image<Memory> & {
  readonly spool: SpoolImage
  readonly bodies: ReturnType<Files['image']>
}

const IMAGES_MAX = 4
const VERSION = '1.0.0'

/** One run of the node. */
export type Run = {
  readonly process: SimProcess
  readonly startedMs: number
  readonly clock: SimClock
  readonly rows: SharedRows
  readonly held: SimHeld
  readonly watched: Watched
  /** Null until the ports are open. */
  cluster: Cluster | null
  /** Null until the spool is read, and in a simulation without mail. */
  mail: SimMail | null
}

export class SimNode {
  readonly name: string
  /** Changes when the machine gets another address. */
  host: string
  readonly id: NodeId
  readonly keys: NodeKeys
  readonly disk: SimDisk
  readonly spool: SpoolDisk
  /** Sealed files of held mail: durable as soon as they are written. */
  readonly bodies: Files
  /** Of the data directory. */
  spoolId: SpoolId
  readonly time: MachineTime
  memory = new Memory()
  clusterId: string
  /** Somebody removed it, or it is a copy. */
  isRemoved = false
  isDestroyed = false
  /** Who let it in; null: it is the founder. */
  issuer: SimNode | null = null
  readonly isTwin: boolean
  images: Image<Memory>[] = []
  run: Run | null = null
  starts = 0
  /** When the last process ended, and whether its machine said nothing about it. */
  endedMs = 0
  isQuiet = false
  /** How often its disk went back, or ran beside a copy: what it did once it may do again. */
  relapses = 0
  readonly #setting: Setting
  readonly #dice: Dice
  /** Granted, and not taken over yet. A file beside the database. */
  #joined: Joined | null = null

  constructor(
    setting: Setting,
    name: string,
    options: { readonly host: string; readonly time: MachineTime; readonly from?: SimNode },
  ) {
    this.#setting = setting
    this.name = name
    this.host = options.host
    this.time = options.time
    this.#dice = setting.world.dice.split(`node ${name}`)
    const { from } = options
    this.isTwin = from !== undefined
    this.id = from?.id ?? newNodeId(this.#dice.split('id'))
    this.keys = from?.keys ?? newKeys(this.#dice.split('keys'))
    this.clusterId = from?.clusterId ?? clusterIdOf(this.id, publicKeys(this.keys))
    this.disk = new SimDisk(this.#dice.split('disk'), from?.disk.image() ?? null)
    this.spool = new SpoolDisk(setting.world, this.#dice.split('spool'))
    this.spoolId = newSpoolId(this.#dice.split('spool id'))
    this.bodies = from?.bodies ?? new Files()
    if (from !== undefined) this.memory = from.memory.copy()
    this.relapses = from === undefined ? 0 : 1
    this.disk.onCommit = () => this.#committed()
  }

  get isUp(): boolean {
    return this.run !== null
  }

  /** @throws when it is down */
  get rows(): SharedRows {
    return this.#running().rows
  }

  /** @throws RefusalError when it is down or not open yet */
  get cluster(): Cluster {
    const cluster = this.run?.cluster ?? null
    if (cluster !== null) return cluster
    throw new RefusalError('unavailable', null, `${this.name} is not open.`, 'Wait.')
  }

  /** @throws when it is down */
  get watched(): Watched {
    return this.#running().watched
  }

  get address(): PeerAddress {
    return { host: this.host, port: PORT }
  }

  /** Where it takes mail: another network than that of the peers. */
  get smtpHost(): string {
    return this.host.replace(/^10\.0\./, '10.1.')
  }

  /** What it says of itself to be let in. */
  get applicant(): Applicant {
    const name = this.name.split("'")[0] ?? ''
    const facts = { name, smtp: '', web: '', version: VERSION, features: [] }
    return { node: this.id, ...publicKeys(this.keys), ...facts, peer: [this.address] }
  }

  /** Is a member from the beginning: what a join would have given. */
  settle(issuer: SimNode): void {
    const names = issuer.rows.list(MEMBER_KIND).map(({ key }) => `${MEMBER_KIND}/${key}`)
    const rows = issuer.rows.rowsOf(names)
    const { clusterId, id } = issuer
    this.#joined = { clusterId, issuer: id, name: issuer.applicant.name, rows }
    this.clusterId = issuer.clusterId
    this.issuer = issuer
  }

  /** Asks to be let in by a token, as a node of its own. @throws RefusalError with the remedy */
  async join(token: string, issuer: SimNode): Promise<void> {
    const { world, fabric } = this.#setting
    const process = new SimProcess(this.name, this.#dice.split('join').below(2 ** 31))
    const clock = new SimClock(world, process, this.time)
    const random = this.#dice.split('join random')
    const network = fabric.attach(this.host, process)
    const observer = new Observer(clock, () => {}, 'error')
    const { node: _, exchange: __, sign: ___, ...facts } = this.applicant
    try {
      this.#joined = await joinCluster(
        token,
        {
          self: this.#self('000000000000'),
          clusterId: this.clusterId,
          members: 1,
          own: { operators: 0, domains: 0 },
          discard: true,
          listen: this.address,
          facts,
          protocol: PROTOCOL,
        },
        { clock, random, network, observer },
      )
      this.clusterId = this.#joined.clusterId
      this.issuer = issuer
    } finally {
      process.isAlive = false
      fabric.ended(this.host, process, false)
    }
  }

  start(): void {
    if (this.run !== null || this.isDestroyed) return
    const { world, fabric, mutant, nodeOfWriter } = this.#setting
    this.starts += 1
    this.memory.epoch += 1
    const number = this.#dice.split(`process ${this.starts}`).below(2 ** 31)
    const process = new SimProcess(this.name, number)
    const clock = new SimClock(world, process, this.time)
    const observer = new Tap(clock, world, this)
    const { state } = this.disk.open(observer)
    const plain = this.#dice.split(`run ${this.starts}`)
    const random = mutant.random?.(plain, this) ?? plain
    const replica = new Replica(state, { clock, random, node: this.id })
    nodeOfWriter.set(replica.writer, this.id)
    const rows = this.#watch(mutant.rows?.(replica, this) ?? replica)
    const watched: Watched = {
      name: this.name,
      rows,
      memory: this.memory,
      wallMs: () => clock.wallMs(),
      disks: () => this.#disks(),
    }
    this.#listen(watched, replica)
    const held = new SimHeld(
      {
        node: this.id,
        name: this.applicant.name,
        epoch: this.memory.epoch,
        store: state,
        rows,
        bodies: this.bodies,
        patience: patienceOf(this.#setting.mail?.timeScale ?? 1),
        enqueue: (effect) => this.#enqueue(effect),
        hasEnqueued: (copy) => this.memory.enqueued.has(copy),
      },
      { clock, observer, dice: this.#dice.split(`held ${this.starts}`) },
    )
    const startedMs = world.nowMs
    const run: Run = { process, startedMs, clock, rows, held, watched, cluster: null, mail: null }
    this.run = run
    world.tell(() => `${this.name} starts, writer ${replica.writer}`)
    fabric.started(this.host)
    if (this.#setting.mail !== undefined) fabric.started(this.smtpHost)
    const seen = fabric.attach(this.host, process)
    const network = mutant.network?.(seen, this) ?? seen
    const issued = new IssuedTokens(state)
    const onJump = (): void => {
      replica.renew()
      nodeOfWriter.set(replica.writer, this.id)
    }
    const deps = { clock, random, network, observer }
    const seams = { state, issued: mutant.issued?.(issued, this) ?? issued, onJump }
    this.#open(run, seams, deps).catch((error: unknown) => this.#failed(run, error))
  }

  /** As a unit of systemd: a full disk is tried again, who is no member any more stays out. */
  #failed(run: Run, error: unknown): void {
    const { world } = this.#setting
    if (this.run !== run) return
    world.tell(() => `${this.name} does not start: ${String(error)}`)
    this.crash(false)
    if (error instanceof StoreError) {
      world.after(1_000, () => {
        if (!this.isDestroyed) this.start()
      })
    } else if (!(error instanceof RefusalError)) {
      world.violate(`${this.name} does not start: ${String(error)}`)
    } else if (!this.isRemoved) {
      // Its clock is too far behind that of the node that let it in.
      this.isDestroyed = true
    }
  }

  /** Ends the process. `quiet`: the machine lost its power. */
  crash(quiet: boolean): void {
    const { run } = this
    if (run === null) return
    this.run = null
    // Nobody may have noticed a run that was as short as this.
    const { nowMs } = this.#setting.world
    if (nowMs - run.startedMs > BRIEF_MS) this.endedMs = nowMs
    this.isQuiet = quiet
    run.process.isAlive = false
    run.process.endedMs = nowMs
    this.#setting.fabric.ended(this.host, run.process, quiet)
    this.#setting.fabric.ended(this.smtpHost, run.process, quiet)
    this.disk.crash()
    this.spool.crash(quiet)
    this.#setting.world.tell(() => `${this.name} ${quiet ? 'loses its power' : 'is killed'}`)
  }

  /** The disk becomes one of before; false when there is none. The process must have ended. */
  rollBack(): boolean {
    const image = this.images.length === 0 ? null : this.#dice.pick(this.images)
    if (image === null) return false
    this.disk.restore(image)
    this.memory = image.memory.copy()
    this.lapse()
    this.images = this.images.filter(({ atMs }) => atMs <= image.atMs)
    this.#setting.world.tell(() => `${this.name} goes back to ${(image.atMs / 1000).toFixed(1)} s`)
    return true
  }

  /** What it did once it may do again, and what it acknowledged it may not have. */
  lapse(): void {
    this.relapses += 1
    this.memory.hasLapsed = true
  }

  /** For good: nothing of the machine comes back. Not `quiet`: something still says that it is gone. */
  destroy(quiet = true): void {
    this.crash(quiet)
    this.isDestroyed = true
  }

  /** The directory of the spool is lost. The process must have ended. */
  wipeSpool(): void {
    this.spool.wipe()
    this.spoolId = newSpoolId(this.#dice.split(`spool id ${this.starts}`))
    this.#setting.world.tell(() => `the spool of ${this.name} is wiped`)
  }

  /** All disks of the machine as they are now. */
  snapshot(): Snapshot {
    const { nowMs: atMs } = this.#setting.world
    const [spool, bodies] = [this.spool.image(), this.bodies.image()]
    return { atMs, memory: this.memory.copy(), ...this.disk.image(), spool, bodies }
  }

  /** The process must have ended. */
  restore(image: Snapshot): void {
    this.disk.restore(image)
    this.spool.restore(image.spool)
    this.bodies.restore(image.bodies)
    this.memory = image.memory.copy()
    this.lapse()
    this.#setting.world.tell(() => `${this.name} goes back to ${(image.atMs / 1000).toFixed(1)} s`)
  }

  /** An event of the product here. */
  heard(event: string, fields: object): void {
    const { mail } = this.#setting
    if (mail !== undefined) hearMail(mail, event, fields)
  }

  /** Whoever has this id, as a mutant may know it. */
  peer(id: NodeId): SimNode | null {
    return this.#setting.nodeOf(id)
  }

  stall(ms: number): void {
    const process = this.run?.process
    if (process === undefined) return
    // A shorter one does not end a longer one: its timers wait for that.
    process.stalledUntilMs = Math.max(process.stalledUntilMs, this.#setting.world.nowMs + ms)
  }

  /** The machine sleeps: nothing runs, and its monotonic clock stands still. */
  suspend(ms: number): void {
    const { world } = this.#setting
    const { process } = this.run ?? {}
    this.stall(ms)
    world.after(ms, () => {
      if (process?.isAlive === true) this.time.asleepMs = (this.time.asleepMs ?? 0) + ms
    })
  }

  /** By the rows of this node. */
  hasRemoved(id: NodeId): boolean {
    const cell = this.run?.rows.cell(MEMBER_KIND, `${id}/standing`) ?? null
    return cell?.heads.some(({ value }) => value === '"evicted"') ?? false
  }

  close(): void {
    this.crash(false)
    this.disk.close()
  }

  #running(): Run {
    if (this.run === null) throw new Error(`${this.name} is down`)
    return this.run
  }

  #self(instance: string): Self {
    const { epoch } = this.memory
    return { node: this.id, keys: this.keys, instance, epoch, version: VERSION }
  }

  async #open(
    run: Run,
    seams: { readonly state: StoreDatabase; issued: IssuedTokens; onJump: () => void },
    deps: ClusterDeps,
  ): Promise<void> {
    const { state: store, issued, onJump } = seams
    const { world } = this.#setting
    const { rows, held } = run
    rows.start()
    const joined = this.#joined
    if (joined !== null) {
      rows.transact(() => {
        rows.reset([])
        issued.clear()
        rows.apply({ peer: joined.issuer, rows: joined.rows, as: { kind: 'repair' } })
      })
      this.#joined = null
    }
    await held.rebuild()
    const { name } = this.applicant
    const mail = await this.#openMail(run, store, deps)
    run.mail = mail
    const cluster = await Cluster.start(
      {
        self: this.#self(rows.writer),
        clusterId: this.clusterId,
        name,
        listen: this.address,
        advertise: [this.address],
        smtp: mail === null ? '' : `${this.smtpHost}:25`,
        web: '',
        ...(mail === null ? {} : { spoolId: this.spoolId }),
        features: [],
        state: rows,
        trace: null,
        issued,
        report: () => mail?.report(report()) ?? report(),
        awaits: joined !== null,
        parallelCrypto: false,
        onJump,
      },
      deps,
    )
    cluster.links.onRefused((_, refusal) => {
      if (refusal === 'evicted') world.sometimes('removed node tried again')
    })
    run.cluster = cluster
    await mail?.start(this.#self(rows.writer), cluster, deps)
    held.open(cluster, mail?.custody ?? null)
  }

  /** Null in a simulation without mail. */
  async #openMail(run: Run, store: StoreDatabase, deps: ClusterDeps): Promise<SimMail | null> {
    const { mail: setting, world, fabric } = this.#setting
    if (setting === undefined) return null
    const nodes = () => run.cluster?.roster.members().map(({ node: id, name }) => ({ id, name }))
    return await SimMail.open(this, setting, {
      ...deps,
      process: run.process,
      dice: this.#dice.split(`mail ${this.starts}`),
      store,
      mailNetwork: fabric.attach(this.smtpHost, run.process),
      quarantine: run.held.quarantine,
      peers: () => run.cluster?.roster.peers().length ?? 0,
      nodeName: (id) => nodeName(() => nodes() ?? [], id),
      onFailure: (error) => {
        world.tell(() => `the spool of ${this.name} fails: ${error.message}`)
        world.after(1_000, () => this.#restart(run), run.process)
      },
    })
  }

  /** A supervisor starts a process that has ended again. */
  #restart(run: Run): void {
    if (this.run !== run) return
    this.crash(false)
    this.#setting.world.after(1_000, () => {
      if (!this.isDestroyed) this.start()
    })
  }

  /** A copy leaves for the queue of this node, durably; the same one again is left alone. */
  #enqueue({ copy, claim }: Effect): void {
    const { memory } = this
    const text = `${claim.by} ${claim.atMs}`
    if (memory.enqueued.get(copy) === text) return
    memory.enqueued.set(copy, text)
    this.#setting.onReleased(this, copy)
  }

  /** `replica`: what no fault and no mutant stands before. */
  #listen(watched: Watched, replica: Replica): void {
    const { oracle } = this.#setting
    for (const kind of KINDS) {
      replica.onChange(kind, ({ keys, origin }) => {
        for (const key of keys) {
          if (origin === 'own') oracle.wrote(watched, kind, key)
          else oracle.saw(watched, kind, key)
        }
      })
    }
    replica.onOwn((write) => oracle.announced(write))
  }

  /** What is on the disks of the members that this node knows. */
  #disks(): readonly Memory[] {
    const peers = this.run?.cluster?.roster.peers() ?? []
    return peers.flatMap(({ node }) => {
      const found = this.#setting.nodeOf(node)
      return found === null || found.isDestroyed ? [] : [found.memory]
    })
  }

  #committed(): void {
    const { world } = this.#setting
    if (this.#dice.below(25) !== 0) return
    // The rows are on the disk, the oracle is told a moment later: never in between.
    world.after(0, () => {
      // A backup of a node that knows itself: before that there was no node.
      if (this.run?.cluster === null || this.run === null) return
      // The oldest stays mostly: backups are of long ago.
      const dropped = this.#dice.chance(0.05) ? 0 : 1 + this.#dice.below(IMAGES_MAX - 1)
      if (this.images.length >= IMAGES_MAX) this.images.splice(dropped, 1)
      this.images.push({ atMs: world.nowMs, memory: this.memory.copy(), ...this.disk.image() })
    })
  }

  #watch(rows: SharedRows): SharedRows {
    const { lostPushes, world } = this.#setting
    return replaced(rows, {
      apply: (incoming) => this.#apply(rows, incoming),
      read: (after, seen, bytesMax) =>
        rows.read(after, seen, Math.min(bytesMax, this.#setting.batchBytes)),
      settle: () => {
        const before = rows.parked
        const left = rows.settle()
        if (left < before) world.sometimes('parked row applied later')
        return left
      },
      onOwn: (listener) => {
        const dice = this.#dice.split(`pushes ${this.starts}`)
        rows.onOwn((write) => {
          if (lostPushes === 0 || !dice.chance(lostPushes)) listener(write)
        })
      },
    })
  }

  #apply(rows: SharedRows, incoming: Incoming): Applied {
    const { world, oracle } = this.#setting
    const { peer, as } = incoming
    // Who is not known yet shows how it was let in, and is told then that it was removed.
    const isKnown = this.run?.cluster?.roster.get(peer) !== null
    if (isKnown && this.hasRemoved(peer)) world.violate(`${this.name} takes rows of a removed node`)
    const before = rows.vector()
    const cursor = as.kind === 'batch' ? rows.cursor(peer) : null
    let applied: Applied
    try {
      applied = rows.apply(incoming)
    } catch (error) {
      if (error instanceof StoreError) world.sometimes('SQLITE_FULL during apply')
      throw error
    }
    if (this.run === null) return applied
    oracle.covered(this.run.watched, before)
    if (applied.changed > 0 && as.kind === 'batch') {
      const isFresh = as.cursor.generation !== cursor?.generation
      if (isFresh && before.size > 0) world.sometimes('catch-up from zero')
    }
    if (applied.changed > 0 && this.#isRelayed(incoming, before)) {
      world.sometimes('relay because of a missing link')
    }
    return applied
  }

  /** Rows of a node that this one has no link with. */
  #isRelayed({ peer, rows }: Incoming, before: Vector): boolean {
    return rows.some((raw) => {
      const { state } = raw as { state: { heads?: { writer: string; seq: number }[] } }
      return state.heads?.some(({ writer, seq }) => {
        const node = this.#setting.nodeOfWriter.get(writer)
        if (node === undefined || node === peer || node === this.id) return false
        return seq > (before.get(writer) ?? 0) && this.run?.cluster?.links.get(node) === null
      })
    })
  }
}

/** Tells the story, and lets the ledger of the mail hear. */
class Tap extends Observer {
  readonly #node: SimNode

  constructor(clock: SimClock, world: World, node: SimNode) {
    const write = (lines: string): void => world.tell(() => `${node.name}: ${lines.trim()}`)
    super(clock, write, world.isTold ? 'info' : 'error')
    this.#node = node
  }

  override emit(event: EventName, fields: Fields = {}): void {
    this.#node.heard(event, fields)
    super.emit(event, fields)
  }
}

/** A person's or a fault's act that a full disk or a rule of the product refused: nothing. */
export function tolerate(act: () => void): boolean {
  try {
    act()
    return true
  } catch (error) {
    if (error instanceof StoreError || error instanceof RefusalError) return false
    throw error
  }
}

/** `part` with some of its methods replaced; the rest is called on `part` itself. */
export function replaced<Part extends object>(part: Part, by: Partial<Part>): Part {
  return new Proxy(part, {
    get: (target, name) => {
      if (Object.hasOwn(by, name)) return Reflect.get(by, name) as unknown
      const value = Reflect.get(target, name, target) as unknown
      return typeof value === 'function' ? value.bind(target) : value
    },
  })
}

function report(): NodeReport {
  return {
    ready: true,
    queue: 0,
    held: 0,
    diskFreeBytes: 1e9,
    diskTotalBytes: 1e10,
    takesCopies: true,
    copies: 0,
    alone: 0,
    inDoubt: 0,
    troubles: [],
  }
}
