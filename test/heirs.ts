/**
 * Nodes that only keep mail for each other and inherit it: real calls over the links of a mesh, a
 * spool in memory, machines that are cut off, stopped, suspended, switched off and restored.
 */
import { drainMicrotasks } from 'bun:jsc'
import type { Clock, Timer } from '../src/base/clock.ts'
import { StoreError } from '../src/base/errors.ts'
import type { MessageId, NodeId } from '../src/base/ids.ts'
import { MessageIds } from '../src/base/ids.ts'
import { Observer } from '../src/base/observe.ts'
import { Absences } from '../src/cluster/absence.ts'
import type { AdoptedWhy } from '../src/cluster/adopt.ts'
import { LinkCalls } from '../src/cluster/calls.ts'
import type {
  Liveness,
  Member,
  Members,
  Network,
  PeerAddress,
  Roster,
  Self,
  Standing,
  Stream,
  StreamHandlers,
} from '../src/cluster/contract.ts'
import { newKeys } from '../src/cluster/keys.ts'
import { UnreachableError } from '../src/cluster/network.ts'
import { patienceOf } from '../src/cluster/patience.ts'
import { Succession } from '../src/cluster/succession.ts'
import type { MailStore } from '../src/cluster/yield.ts'
import type { CopyDraft, Fate } from '../src/store/copies.ts'
import { applyMark, changeOwner, doubt, isAbove, joinStates } from '../src/store/marks.ts'
import {
  type Commit,
  commitOf,
  freshRecipient,
  type HolderState,
  type MarkKind,
  type MarkPayload,
  Message,
} from '../src/store/queued.ts'
import { Mesh, type MeshNode } from './mesh.ts'

export const MINUTE = 60_000
export const PATIENCE = patienceOf(1)
export const IN_DOUBT_MS = 5 * MINUTE
const START_MS = Date.UTC(2026, 10, 22, 12)
const PEER_PORT = 7_946
const MAIL_PORT = 25

/** A spool of which only the owners, holders and states are there. */
class MemoryMail implements MailStore {
  readonly node: NodeId
  readonly own = new Map<MessageId, Message>()
  readonly kept = new Map<MessageId, Message>()
  readonly fates = new Map<MessageId, Fate>()
  readonly marks: (MarkPayload & { readonly id: MessageId; readonly kind: MarkKind })[] = []
  /** The disk is slow: nothing is durable until it is let go. */
  hold: Promise<void> | null = null
  isBroken = false
  readonly #clock: Clock

  constructor(node: NodeId, clock: Clock) {
    this.node = node
    this.#clock = clock
  }

  get copyCount(): number {
    return this.kept.size
  }

  messages(): Iterable<Message> {
    return this.own.values()
  }

  get(id: MessageId): Message | null {
    return this.own.get(id) ?? null
  }

  copies(): Iterable<Message> {
    return this.kept.values()
  }

  copy(id: MessageId): Message | null {
    return this.kept.get(id) ?? null
  }

  read(): AsyncIterable<Uint8Array> {
    throw new Error('no bodies here')
  }

  hasRoomForCopy(): boolean {
    return true
  }

  draftCopy(): CopyDraft {
    throw new Error('no bodies here')
  }

  keep(): Promise<Message> {
    throw new Error('no bodies here')
  }

  markCopy(id: MessageId, kind: MarkKind, payload: MarkPayload): void {
    const copy = this.kept.get(id)
    if (copy === undefined) return
    this.marks.push({ id, kind, r: payload.r })
    applyMark(copy, kind, payload)
  }

  forgetCopy(id: MessageId): void {
    this.kept.delete(id)
  }

  written(): Promise<void> {
    return this.synced()
  }

  async synced(): Promise<void> {
    if (this.isBroken) throw new StoreError('the disk fails', { remedy: 'ask-operator' })
    await this.hold
  }

  onKept(): void {}

  setHolder(message: Message, node: NodeId, state: HolderState | null): void {
    if (this.isBroken) throw new StoreError('the disk fails', { remedy: 'ask-operator' })
    if (state === null) message.holders.delete(node)
    else message.holders.set(node, state)
  }

  owed(): Iterable<Message> {
    return []
  }

  async adopt(
    taken: readonly { readonly id: MessageId; readonly term: number }[],
  ): Promise<readonly Message[]> {
    const adopted: Message[] = []
    for (const { id, term } of taken) {
      const copy = this.kept.get(id)
      if (copy === undefined || term <= copy.term) continue
      if (this.isBroken) break
      changeOwner(copy, { term, owner: this.node })
      doubt(copy, this.#clock.wallMs())
      this.kept.delete(id)
      this.own.set(id, copy)
      adopted.push(copy)
    }
    await this.synced()
    for (const message of adopted) this.settle(message)
    return adopted
  }

  async handOver(message: Message, to: NodeId, term: number): Promise<void> {
    if (this.own.get(message.id) !== message) return
    if (!isAbove({ term, owner: to }, message)) return
    await this.synced()
    changeOwner(message, { term, owner: to })
    this.own.delete(message.id)
    if (message.isFinal) this.#end(message)
    else this.kept.set(message.id, message)
  }

  setOwner(id: MessageId, owner: NodeId, term: number): void {
    const copy = this.kept.get(id)
    if (copy !== undefined && isAbove({ term, owner }, copy)) changeOwner(copy, { term, owner })
  }

  fate(id: MessageId): Fate | null {
    return this.fates.get(id) ?? null
  }

  mark(
    kind: MarkKind,
    message: Message,
    r: readonly number[],
    rest: Omit<MarkPayload, 'r'> = {},
  ): void {
    this.marks.push({ id: message.id, kind, ...rest, r })
    for (const index of r) message.noteMark(kind, index)
  }

  settle(message: Message): void {
    if (!message.isFinal || this.own.get(message.id) !== message) return
    this.own.delete(message.id)
    this.#end(message)
  }

  #end({ id, owner, term, recipients, told }: Message): void {
    const states = recipients.map(({ state }) => state)
    const sure = states.map((_, index) => !told.has(index))
    this.fates.set(id, { id, owner, term, states, sure })
  }

  /** What the disk holds now. */
  image(): { readonly own: readonly Message[]; readonly kept: readonly Message[] } {
    return { own: [...this.own.values()].map(cloned), kept: [...this.kept.values()].map(cloned) }
  }

  restore(image: ReturnType<MemoryMail['image']>): void {
    for (const map of [this.own, this.kept, this.fates]) map.clear()
    for (const message of image.own) this.own.set(message.id, cloned(message))
    for (const message of image.kept) this.kept.set(message.id, cloned(message))
  }
}

function cloned(message: Message): Message {
  const twin = new Message(message.id, commitOf(message, 0))
  for (const [node, state] of message.holders) twin.holders.set(node, state)
  joinStates(twin, message)
  return twin
}

/** `up`: it answers. `down`: the machine does, no process listens. `off`: nobody answers at all. */
export type Power = 'up' | 'down' | 'off'

export class Heir implements Clock {
  readonly house: House
  readonly mesh: MeshNode
  readonly host: string
  readonly keys
  readonly store: MemoryMail
  readonly observer: Observer
  readonly adopted: {
    readonly ids: readonly MessageId[]
    readonly why: AdoptedWhy
    readonly from: NodeId
  }[] = []
  readonly resolved: Record<string, unknown>[] = []
  /** Messages that were said to be free to go on, or not this node's any more. */
  readonly freed: MessageId[] = []
  power: Power = 'up'
  standing: Standing = 'member'
  drain: Member['drain'] = 'accepting'
  epoch = 1
  spoolId = '00000000000000a1'
  isolation: 'deliver' | 'hold' = 'hold'
  isJoined = true
  isDelivering = true
  /** Its peers ask it so often that its own questions have no turn. */
  isStarved = false
  /** So long it slept: its monotonic clock stood still. */
  sleptMs = 0
  stoppedUntilMs = 0
  dials = 0
  lines: string[] = []
  #ids: MessageIds
  #run = 0
  #ackedBoot = new Map<NodeId, number>()
  #parts: {
    readonly absences: Absences
    readonly succession: Succession
    readonly calls: LinkCalls
  } | null = null
  #rosterChanged: (() => void)[] = []

  constructor(house: House, mesh: MeshNode, index: number) {
    this.house = house
    this.mesh = mesh
    this.host = `192.0.2.${index + 1}`
    this.keys = newKeys(house.mesh.random)
    this.store = new MemoryMail(mesh.id, this)
    this.observer = new Observer(this, (text) => this.lines.push(...text.trim().split('\n')))
    this.#ids = new MessageIds(mesh.id, 1, this)
  }

  get id(): NodeId {
    return this.mesh.id
  }

  get name(): string {
    return `mx${this.host.slice(this.host.lastIndexOf('.') + 1)}`
  }

  get succession(): Succession {
    if (this.#parts === null) throw new Error(`${this.name} is down`)
    return this.#parts.succession
  }

  get absences(): Absences {
    if (this.#parts === null) throw new Error(`${this.name} is down`)
    return this.#parts.absences
  }

  get calls(): LinkCalls {
    if (this.#parts === null) throw new Error(`${this.name} is down`)
    return this.#parts.calls
  }

  // ---- its clocks ----

  wallMs(): number {
    return START_MS + Math.round(this.house.nowMs)
  }

  monoMs(): number {
    return this.house.nowMs - this.sleptMs
  }

  bootMs(): number {
    return this.house.nowMs
  }

  after(delayMs: number, run: () => void): Timer {
    const born = this.#run
    let timer = this.house.mesh.clock.after(delayMs, () => {
      if (this.#run !== born) return
      const waitMs = this.stoppedUntilMs - this.house.nowMs
      if (waitMs > 0) timer = this.after(waitMs, run)
      else run()
    })
    return { cancel: () => timer.cancel() }
  }

  // ---- what it is built of ----

  start(): void {
    this.#run += 1
    this.power = 'up'
    this.stoppedUntilMs = 0
    if (!this.mesh.isUp) this.mesh.start()
    const { links } = this.mesh
    links.onClose(({ peer }) => this.#ackedBoot.set(peer, this.bootMs()))
    const roster = this.#roster()
    const members = this.#members()
    const random = this.house.mesh.random
    const deps = { clock: this, random, observer: this.observer, network: this.#network() }
    const calls = new LinkCalls(links, deps)
    const absences = new Absences({ roster, members, calls, patience: PATIENCE }, deps)
    const succession = new Succession(
      {
        self: roster.self,
        roster,
        links,
        members,
        calls,
        absences,
        store: this.store,
        patience: PATIENCE,
        isolation: () => this.isolation,
        inDoubtMs: () => IN_DOUBT_MS,
        isJoined: () => this.isJoined,
        isDelivering: () => this.isDelivering,
        adopted: (messages, why, from) =>
          this.adopted.push({ ids: messages.map(({ id }) => id), why, from }),
        passed: () => {},
        resolved: (id, index, how, from) => this.resolved.push({ id, index, how, from }),
      },
      deps,
    )
    succession.onFreed((messages) => this.freed.push(...messages.map(({ id }) => id)))
    this.#parts = { absences, succession, calls }
  }

  /** The process ends; the machine refuses from here on, or is switched off. */
  crash(power: Exclude<Power, 'up'> = 'down'): void {
    this.power = power
    this.#run += 1
    this.#parts = null
    this.#rosterChanged = []
    this.#ackedBoot = new Map()
    this.mesh.crash()
  }

  /** It starts again, with what its disk holds. */
  restart(): void {
    if (this.power === 'up') this.crash()
    this.epoch += 1
    for (const message of this.store.own.values()) doubt(message, this.wallMs())
    this.start()
    this.house.join()
    this.house.tellRoster()
  }

  /** SIGSTOP: its ports still accept, nothing is answered; the others drop their links. */
  stop(ms: number): void {
    this.stoppedUntilMs = this.house.nowMs + ms
    for (const link of [...this.mesh.links.open.values()]) this.house.mesh.cut(link, 'silence')
  }

  #self(): Self {
    return {
      node: this.id,
      keys: this.keys,
      instance: `${this.epoch}`,
      epoch: this.epoch,
      version: '1',
    }
  }

  get member(): Member {
    return {
      node: this.id,
      name: this.name,
      standing: this.standing,
      exchange: this.keys.exchange.public,
      sign: this.keys.sign.public,
      peer: [{ host: this.host, port: PEER_PORT }],
      smtp: `${this.host}:${MAIL_PORT}`,
      web: '',
      version: '1',
      features: [],
      spool: { id: this.spoolId, epoch: this.epoch },
      drain: this.drain,
      admittedBy: null,
      admittedMs: 0,
    }
  }

  #roster(): Roster {
    const members = (): readonly Member[] =>
      this.house.heirs.map(({ member }) => member).filter(({ standing }) => standing === 'member')
    return {
      clusterId: '00112233445566aa',
      self: this.#self(),
      members,
      peers: () => members().filter(({ node }) => node !== this.id),
      get: (node) => this.house.heirs.find(({ id }) => id === node)?.member ?? null,
      byExchange: () => null,
      onChange: (listener) => this.#rosterChanged.push(listener),
    }
  }

  rosterChanged(): void {
    for (const listener of this.#rosterChanged) listener()
  }

  #members(): Members {
    const get = (node: NodeId): Liveness => {
      const isLinked = this.mesh.links.open.has(node)
      if (isLinked && !this.isStarved) this.#ackedBoot.set(node, this.bootMs())
      return {
        node,
        life: isLinked ? 'alive' : 'dead',
        sinceMono: 0,
        heardMono: null,
        ackedBoot: this.#ackedBoot.get(node) ?? null,
        udp: isLinked,
        tcp: isLinked,
        udpRoundTripMs: null,
      }
    }
    return {
      get,
      all: () => [],
      isUsable: (node) => this.mesh.links.open.has(node),
      onChange: (listener) => this.mesh.links.onOpen(({ peer }) => listener(get(peer), 'dead')),
    }
  }

  #network(): Network {
    return {
      listen: () => Promise.reject(new Error('nobody listens here')),
      datagrams: () => Promise.reject(new Error('no datagrams here')),
      dial: (to, open, timeoutMs) => {
        this.dials += 1
        return this.house.dial(this, to, open, timeoutMs)
      },
    }
  }

  // ---- mail ----

  /** A message of this node; `holders` have a copy, durably. */
  accept(holders: readonly Heir[], states: readonly string[] = ['queued']): MessageId {
    const id = this.#ids.next()
    const commit: Commit = {
      owner: this.id,
      term: 1,
      holders: holders.map((heir) => heir.id),
      envelope: envelopeOf(id, this.wallMs(), states.length),
      prepend: '',
      sizeBytes: 1,
      sha256: '',
      pieces: 1,
      expiresMs: this.wallMs() + 5 * 24 * 60 * MINUTE,
      facts: { subject: null } as unknown as Commit['facts'],
      verdicts: [],
      judgement: null,
      dsn: false,
      heldMoved: false,
      recipients: states.map((state) =>
        freshRecipient(state as Message['recipients'][number]['state']),
      ),
    }
    const message = new Message(id, commit)
    for (const holder of holders) {
      message.holders.set(holder.id, 'kept')
      holder.store.kept.set(id, new Message(id, commit))
    }
    this.store.own.set(id, message)
    return id
  }

  /** A mark of the owner, as the batches carry it; `heard` have it. */
  mark(
    id: MessageId,
    state: Message['recipients'][number]['state'],
    heard: readonly Heir[],
    index = 0,
  ): void {
    const kind = state === 'done' ? 'done' : state === 'trying' ? 'try' : 'defer'
    const message = this.store.own.get(id) ?? this.store.kept.get(id)
    const recipient = message?.recipients[index]
    if (message === undefined || recipient === undefined)
      throw new Error(`no ${id} on ${this.name}`)
    recipient.state = state
    for (const heir of heard) heir.store.markCopy(id, kind, { r: [index] })
    this.store.settle(message)
  }

  mayAct(id: MessageId): boolean {
    const message = this.store.get(id)
    return message !== null && this.succession.mayAct(message)
  }

  stateOf(id: MessageId, index = 0): string | null {
    const message = this.store.get(id) ?? this.store.copy(id)
    return message?.recipients[index]?.state ?? this.store.fate(id)?.states[index] ?? null
  }

  count(event: string, text = ''): number {
    return this.lines.filter((line) => line.includes(`"event":"${event}"`) && line.includes(text))
      .length
  }
}

export class House {
  readonly mesh: Mesh
  readonly heirs: Heir[]
  /** Pairs of names that do not reach each other, `a b`. */
  readonly #cuts = new Set<string>()
  /** `a b`: something between them answers dials of a to b with a refusal. */
  readonly forged = new Set<string>()
  /** Ports that are closed to dials from some host: `host:port`, or `host`. */
  readonly silent = new Set<string>()

  constructor(count: number, options: { readonly seed?: number } = {}) {
    this.mesh = new Mesh({ seed: options.seed ?? 1 })
    this.mesh.add(count)
    this.heirs = this.mesh.nodes.map((node, index) => new Heir(this, node, index))
    for (const heir of this.heirs) heir.start()
    this.join()
  }

  get nowMs(): number {
    return this.mesh.clock.nowMs
  }

  heir(index: number): Heir {
    const heir = this.heirs[index]
    if (heir === undefined) throw new Error(`no heir ${index}`)
    return heir
  }

  /** Promises settle after each event, however long their chain is. */
  run(ms: number): void {
    const untilMs = this.nowMs + ms
    do drainMicrotasks()
    while (this.mesh.clock.step(untilMs))
  }

  /** Cuts `one` off from all of `others`, both ways. */
  cut(one: Heir, ...others: readonly Heir[]): void {
    for (const other of others) {
      this.#cuts.add(`${one.name} ${other.name}`)
      this.#cuts.add(`${other.name} ${one.name}`)
      this.mesh.unlink(one.mesh, other.mesh)
    }
  }

  heal(): void {
    this.#cuts.clear()
    this.join()
  }

  isCut(one: Heir, other: Heir): boolean {
    return this.#cuts.has(`${one.name} ${other.name}`)
  }

  join(): void {
    for (const one of this.heirs) {
      for (const other of this.heirs) {
        if (one.id >= other.id || this.isCut(one, other)) continue
        if (one.power !== 'up' || other.power !== 'up') continue
        if (one.stoppedUntilMs > this.nowMs || other.stoppedUntilMs > this.nowMs) continue
        if (one.standing !== 'member' || other.standing !== 'member') continue
        this.mesh.link(one.mesh, other.mesh)
      }
    }
  }

  tellRoster(): void {
    for (const heir of this.heirs) heir.rosterChanged()
  }

  /** An operator says that it is gone for good. */
  remove(heir: Heir): void {
    heir.standing = 'evicted'
    for (const link of [...heir.mesh.links.open.values()]) this.mesh.cut(link, 'removed')
    this.tellRoster()
  }

  dial(
    from: Heir,
    to: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
    timeoutMs: number,
  ): Promise<void> {
    const target = this.heirs.find(({ host }) => host === to.host)
    const isSilent =
      target === undefined ||
      target.power === 'off' ||
      this.isCut(from, target) ||
      this.silent.has(`${to.host}:${to.port}`)
    const isForged = this.forged.has(`${from.host} ${to.host}`)
    return new Promise((resolve, reject) => {
      if (isSilent && !isForged) {
        from.after(timeoutMs, () => reject(new UnreachableError('no answer', { isRefused: false })))
        return
      }
      from.after(2, () => {
        if (target === undefined || target.power === 'down' || isForged) {
          reject(new UnreachableError('refused', { isRefused: true }))
          return
        }
        this.#connect(from, target, to, open)
        resolve()
      })
    })
  }

  /** Its port for peers takes the connection and says nothing; its port for mail speaks SMTP. */
  #connect(
    from: Heir,
    target: Heir,
    to: PeerAddress,
    open: (stream: Stream) => StreamHandlers,
  ): void {
    let isOver = false
    let text = ''
    const say = (line: string): void => {
      target.after(1, () => {
        if (!isOver) handlers.received(new TextEncoder().encode(`${line}\r\n`))
      })
    }
    const stream: Stream = {
      remote: to,
      write: (bytes) => {
        text += Buffer.from(bytes).toString('latin1')
        for (let end = text.indexOf('\r\n'); end >= 0; end = text.indexOf('\r\n')) {
          const [verb = '', ...rest] = text.slice(0, end).split(' ')
          text = text.slice(end + 2)
          if (verb !== 'XPOSTERN') continue
          target.after(1, () => {
            const said = target.succession.witness.answer(rest.join(' '))
            say(said === null ? '500 5.5.2 Unknown command' : `250 2.0.0 ${said}`)
          })
        }
        return true
      },
      end: () => {
        isOver = true
      },
      terminate: () => {
        isOver = true
      },
    }
    const handlers = open(stream)
    if (to.port === MAIL_PORT) say(`220 ${target.name} ESMTP Postern`)
    void from
  }
}

function envelopeOf(id: MessageId, receivedMs: number, recipients: number): Commit['envelope'] {
  return {
    id,
    receivedMs,
    clientIp: '198.51.100.7',
    greeting: 'client',
    protocol: 'ESMTP',
    tls: null,
    outbound: false,
    sender: 'a@example.org',
    eightBit: false,
    smtpUtf8: false,
    ret: null,
    envid: null,
    recipients: Array.from({ length: recipients }, (_, index) => ({
      address: `r${index}@example.com`,
      notify: null,
      orcpt: null,
    })),
  }
}
