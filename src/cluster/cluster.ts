/**
 * One node's part in its cluster: who is in it, who lives, what flows. The parts are put together
 * here, and told to whoever looks. A node without peers is a cluster of one.
 */
import { isoTime, wallOf } from '../base/clock.ts'
import { RefusalError } from '../base/errors.ts'
import type { NodeId, SpoolId } from '../base/ids.ts'
import type { Feed } from '../store/feed.ts'
import type { IssuedTokens } from '../store/invitations.ts'
import type { SharedRows } from '../store/shared.ts'
import { Admissions } from './admission.ts'
import { LinkCalls } from './calls.ts'
import type {
  ClusterDeps,
  ClusterEvent,
  ClusterView,
  LinkView,
  Member,
  NodeReport,
  NodeState,
  NodeView,
  PeerAddress,
  Self,
} from './contract.ts'
import { Invitations } from './invite.ts'
import { JoinDoor } from './join.ts'
import { LinkTable } from './link.ts'
import { MemberTable } from './members.ts'
import { MemberRoster } from './roster.ts'
import { Sync } from './sync.ts'

/** What is shown of the past. */
const EVENTS_MAX = 200
/** A port that was free for TCP may be taken for UDP; only asked again when any would do. */
const PORTS_TRIED_MAX = 10
/** How often a node looks whether others run under its name. */
const WATCH_MS = 5_000
/** Wall time that passes monotonic time, or falls behind it, by more between two looks. */
const JUMP_MS = 2_000

export type ClusterOptions = {
  readonly self: Self
  readonly clusterId: string
  readonly name: string
  /** UDP and TCP on the same port; 0 takes any. */
  readonly listen: PeerAddress
  /** What peers are told to dial, the best first; a port of 0 is that of `listen`. */
  readonly advertise: readonly PeerAddress[]
  readonly smtp: string
  readonly web: string
  /** Of the data directory: peers learn when a node comes back without its mail. */
  readonly spoolId?: SpoolId
  /** What this version reads; a new format is written when all members name it. */
  readonly features: readonly string[]
  readonly state: SharedRows
  readonly trace: Feed | null
  readonly issued: IssuedTokens
  readonly report: () => NodeReport
  /** What the cluster has in common is still to be read from a peer. */
  readonly awaits: boolean
  /** Large frames by WebCrypto, off the loop. A simulation says no. */
  readonly parallelCrypto: boolean
  /** The clock jumped: this process may be a copy of itself, resumed; its feeds must be renewed. */
  readonly onJump: () => void
}

export class Cluster {
  readonly roster: MemberRoster
  readonly links: LinkTable
  readonly members: MemberTable
  readonly sync: Sync
  readonly calls: LinkCalls
  readonly invitations: Invitations
  readonly #options: ClusterOptions
  readonly #deps: ClusterDeps
  readonly #listeners = new Set<() => void>()
  readonly #events: ClusterEvent[] = []
  /** What was told of each member last: state and name. */
  #told = new Map<NodeId, NodeState>()
  #repairs = 0
  #doubles = new Set<string>()
  #timer: { cancel(): void }
  /** Wall less monotonic time. */
  #skewMs: number
  #isStopped = false
  #removedBy: NodeId | null = null

  /** Listens, and dials the members. @throws RefusalError for a port that is taken; StoreError */
  static async start(options: ClusterOptions, deps: ClusterDeps): Promise<Cluster> {
    const roster = new MemberRoster(options.self, options.clusterId, options.state, deps)
    const { links, members, invitations } = await openPorts(options, roster, deps)
    const cluster = new Cluster(options, roster, links, members, invitations, deps)
    cluster.announce(options)
    return cluster
  }

  /** Tells the others where this node takes mail and shows its pages, when it is news. */
  announce({ smtp, web }: { readonly smtp: string; readonly web: string }): void {
    const { self, name, features, advertise, spoolId } = this.#options
    const peer = advertise.map(({ host, port }) => ({ host, port: port || this.port }))
    // Who listens everywhere is reached where its peers reach it.
    const host = peer[0]?.host ?? ''
    const reached = smtp.replace(
      /^(0\.0\.0\.0|\[::\])(?=:)/,
      host.includes(':') ? `[${host}]` : host,
    )
    const facts = { name, peer, smtp: reached, web, version: self.version, features }
    const spool = spoolId === undefined ? {} : { spool: { id: spoolId, epoch: self.epoch } }
    this.roster.announce({ ...facts, ...spool })
  }

  private constructor(
    options: ClusterOptions,
    roster: MemberRoster,
    links: LinkTable,
    members: MemberTable,
    invitations: Invitations,
    deps: ClusterDeps,
  ) {
    this.#options = options
    this.#deps = deps
    this.#skewMs = deps.clock.wallMs() - deps.clock.monoMs()
    this.roster = roster
    this.links = links
    this.members = members
    this.invitations = invitations
    const { self, state, trace, report, awaits } = options
    this.calls = new LinkCalls(links, deps, (node) => this.nameOf(node))
    const feeds = { state, trace }
    this.sync = new Sync({ self, roster, links, members, feeds, report, awaits }, deps)
    this.#told = this.#states()
    members.onChange(({ node, life }) => {
      // A datagram came through: the link can be dialled now, not at the end of its pause.
      if (life === 'alive') links.wake(node)
      this.#look()
    })
    roster.onChange(() => this.#look())
    links.onOpen(() => this.#look())
    links.onClose(() => this.#look())
    links.onRefused((node, refusal) => {
      if (refusal !== 'evicted' || this.#removedBy !== null) return
      this.#removedBy = node
      this.#note(node, 'refuses this node', 'It was removed there.')
      this.#changed()
    })
    this.sync.onChange(() => this.#look())
    this.#timer = deps.clock.after(WATCH_MS, () => this.#watch())
  }

  /** Where peers reach this node: the port is never 0. */
  get port(): number {
    return this.links.port
  }

  /**
   * The first member that said that this node was removed. Removal is for good, and its row does
   * not come here any more: no node gives rows to one that was removed.
   */
  get removedBy(): NodeId | null {
    return this.#removedBy
  }

  /** Rows that wait for their time: a clock runs ahead. */
  get parked(): number {
    return this.#options.state.parked
  }

  /** What people call a node; its id when nobody has said. */
  nameOf(node: NodeId): string {
    return this.roster.get(node)?.name ?? node
  }

  /** By id or name. @throws RefusalError notFound */
  find(word: string): Member {
    const member = this.roster.find(word)
    if (member !== null) return member
    const twins = this.roster.members().filter(({ name }) => name === word)
    if (twins.length > 1) {
      throw new RefusalError(
        'conflict',
        'node',
        `${twins.length} nodes have the name ${JSON.stringify(word.slice(0, 64))}.`,
        `Give the id of the one that you mean: ${twins.map(({ node }) => node).join(', ')}.`,
      )
    }
    const [gone] = this.roster.former().filter(({ name }) => name === word)
    if (gone !== undefined) return gone
    throw new RefusalError(
      'notFound',
      'node',
      `There is no node ${JSON.stringify(word.slice(0, 64))}.`,
      'See the nodes that there are with "postern status".',
    )
  }

  stateOf(member: Member): NodeState {
    const { node, standing, drain } = member
    if (standing !== 'member') return standing
    const life =
      node === this.#options.self.node ? 'alive' : (this.members.get(node)?.life ?? 'suspect')
    // Whoever drains a node is about to stop it: that is no alarm.
    if (drain === 'drained') return 'drained'
    if (life !== 'alive') return life
    return drain === 'accepting' ? 'alive' : 'draining'
  }

  /** `mx2, which has not answered since 2026-…Z`: for whoever wanted something of it. */
  describe(node: NodeId): string {
    const member = this.roster.get(node)
    if (member === null) return node
    const { name, standing } = member
    if (standing === 'evicted') return `${name}, which was removed`
    if (standing === 'left') return `${name}, which has left the cluster`
    if (this.members.isUsable(node) || this.links.get(node) !== null) return name
    const heardMs = this.heardMs(node)
    if (heardMs === null) return `${name}, which does not answer`
    return `${name}, which has not answered since ${isoTime(heardMs)}`
  }

  /** Wall ms of the last sign of life; null: none since this node started. */
  heardMs(node: NodeId): number | null {
    const heardMono = this.members.get(node)?.heardMono ?? null
    return heardMono === null ? null : wallOf(this.#deps.clock, heardMono)
  }

  /** After every change worth showing. Gives how to stop it. */
  onChange(listener: () => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  /** Cheap, for whoever asks often: `view` counts links and rows too. */
  nodes(): readonly NodeView[] {
    return this.#everybody().map((member) => this.#nodeView(member))
  }

  view(): ClusterView {
    const { state } = this.#options
    return {
      clusterId: this.roster.clusterId,
      nodes: this.nodes(),
      links: this.#linkViews(),
      repairs: this.sync.repairs,
      parked: this.parked,
      digest: state.digest()?.root ?? '',
      clockTrouble: this.sync.clockTrouble(),
      events: [...this.#events].reverse(),
    }
  }

  /** Closes all links and ports. What was written and not sent goes at the next start. */
  stop(): void {
    this.#isStopped = true
    this.#timer.cancel()
    this.sync.close()
    this.members.close()
    this.links.close()
    this.#listeners.clear()
  }

  /** This node, then the others by name, then those that were members once. */
  #everybody(): readonly Member[] {
    const [me, ...peers] = this.roster.members()
    const byName = peers.sort((a, b) => (a.name < b.name ? -1 : 1))
    return [...(me === undefined ? [] : [me]), ...byName, ...this.roster.former()]
  }

  #states(): Map<NodeId, NodeState> {
    return new Map(this.#everybody().map((member) => [member.node, this.stateOf(member)]))
  }

  #nodeView(member: Member): NodeView {
    const { node, name, version, peer, smtp, web, admittedMs } = member
    const here = node === this.#options.self.node
    const liveness = this.members.get(node)
    const heard = this.sync.peer(node)
    const lag = here || member.standing !== 'member' ? { rows: 0, ms: 0 } : this.sync.lagOf(node)
    return {
      id: node,
      name,
      here,
      state: this.stateOf(member),
      sinceMs: liveness === null ? null : wallOf(this.#deps.clock, liveness.sinceMono),
      lagRows: lag.rows,
      lagMs: lag.ms,
      report: here ? this.#options.report() : (heard?.report ?? null),
      clockOffsetMs: here ? 0 : (heard?.clockOffsetMs ?? null),
      version,
      peer: peer.map(({ host, port }) => `${host.includes(':') ? `[${host}]` : host}:${port}`),
      smtp,
      web,
      admittedMs,
    }
  }

  /** Every way between two members, as the one it begins at sees it. */
  #linkViews(): readonly LinkView[] {
    const nodes = this.#everybody().flatMap(({ node, standing }) =>
      standing === 'member' ? [node] : [],
    )
    return nodes.flatMap((from) => {
      const sights = this.members.linksOf(from)
      return nodes.flatMap((to) => {
        if (from === to) return []
        const sight = sights?.get(to)
        const isHere = from === this.#options.self.node
        const link = isHere ? this.links.get(to) : null
        return {
          from,
          to,
          tcp: isHere ? link !== null : (sight?.tcp.works ?? null),
          udp: sight?.udp.works ?? null,
          tcpMs: link?.roundTripMs ?? sight?.tcp.ms ?? null,
          udpMs: sight?.udp.ms ?? null,
          trouble: isHere ? this.links.trouble(to) : null,
        }
      })
    })
  }

  /** Tells what has changed since it was told last. */
  #look(): void {
    if (this.#isStopped) return
    const states = this.#states()
    for (const [node, state] of states) {
      const before = this.#told.get(node)
      if (before === state) continue
      if (before === undefined) this.#note(node, 'joined', '')
      else this.#note(node, state, `was ${before}`)
    }
    this.#told = states
    if (this.sync.repairs > this.#repairs) {
      const count = this.sync.repairs - this.#repairs
      this.#note(this.#options.self.node, 'repaired', `${count} rows differed from a peer's`)
    }
    this.#repairs = this.sync.repairs
    this.#changed()
  }

  #watch(): void {
    this.#lookForJump()
    for (const { node, kept, refused } of this.links.duplicates()) {
      const name = `${node} ${refused.instance}`
      if (this.#doubles.has(name)) continue
      this.#doubles.add(name)
      const at = `${kept.remote.host} and ${refused.remote.host}`
      this.#note(node, 'runs twice', `Two processes have its keys, at ${at}. One is refused.`)
    }
    this.#timer = this.#deps.clock.after(WATCH_MS, () => this.#watch())
  }

  /** A clock that was set does it, and a machine that was suspended or resumed from a copy. */
  #lookForJump(): void {
    const { clock, observer } = this.#deps
    const skewMs = clock.wallMs() - clock.monoMs()
    const jumpMs = skewMs - this.#skewMs
    this.#skewMs = skewMs
    if (Math.abs(jumpMs) <= JUMP_MS) return
    observer.emit('clock.jumped', { ms: Math.round(jumpMs) })
    this.#options.onJump()
  }

  #note(node: NodeId, what: string, detail: string): void {
    const atMs = this.#deps.clock.wallMs()
    this.#events.push({ atMs, node, name: this.nameOf(node), what, detail })
    if (this.#events.length > EVENTS_MAX) this.#events.shift()
  }

  #changed(): void {
    for (const listener of [...this.#listeners]) listener()
  }
}

/** Links and datagrams at the same port. */
async function openPorts(
  options: ClusterOptions,
  roster: MemberRoster,
  deps: ClusterDeps,
): Promise<{
  readonly links: LinkTable
  readonly members: MemberTable
  readonly invitations: Invitations
}> {
  const { self, clusterId, listen, state, issued, parallelCrypto } = options
  for (let tried = 1; ; tried += 1) {
    const here = { ...listen }
    const invitations = new Invitations(
      { roster, state, issued, addresses: () => roster.get(self.node)?.peer ?? [] },
      deps,
    )
    const onJoin = new JoinDoor({ roster, state, invitations, listen: here }, deps)
    const { version } = self
    const admissions = new Admissions(roster, state)
    const links = await LinkTable.open(
      { self, clusterId, roster, listen, version, parallelCrypto, onJoin, admissions },
      deps,
    )
    here.port = links.port
    try {
      return {
        links,
        members: await MemberTable.open({ roster, links, listen: here }, deps),
        invitations,
      }
    } catch (error) {
      links.close()
      if (listen.port !== 0 || tried >= PORTS_TRIED_MAX) throw error
    }
  }
}
