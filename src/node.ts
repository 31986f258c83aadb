/**
 * Composition root: builds one node out of clock, random, resolver and network, and joins what
 * must not know each other. Without peers a node is a cluster of one.
 */
import { chmodSync, existsSync, mkdirSync, unlinkSync } from 'node:fs'
import { hostname as systemHostname } from 'node:os'
import { join as joinPath } from 'node:path'
import { createWeb } from '../web/server.ts'
import { createAdmin } from './admin/admin.ts'
import { HeldHolders } from './admin/held-holders.ts'
import { heldNodes } from './admin/held-nodes.ts'
import { answerQueue } from './admin/queue-peers.ts'
import { secretName } from './admin/signing.ts'
import { type Clock, pause, SystemClock } from './base/clock.ts'
import { type Resolver, SystemResolver } from './base/dns.ts'
import { SystemDnsWire } from './base/dns-wire.ts'
import { formatEndpoint } from './base/endpoint.ts'
import { messageOf, RefusalError, StoreError } from './base/errors.ts'
import { diskSpace, lockDirectory, readIfThere, systemDisk } from './base/files.ts'
import { MessageIds, type NodeId, parseNodeId } from './base/ids.ts'
import { ListNames } from './base/list-names.ts'
import { NameServers, systemServers } from './base/nameserver.ts'
import { Observer } from './base/observe.ts'
import { type Random, SystemRandom } from './base/random.ts'
import { VERSION } from './base/version.ts'
import type { Address, NodeOptions, RunningNode } from './cli/world.ts'
import type { AdoptedWhy } from './cluster/adopt.ts'
import { Cluster, type ClusterOptions } from './cluster/cluster.ts'
import type { ClusterDeps, Network, Self, StreamHandlers } from './cluster/contract.ts'
import { Custody } from './cluster/custody.ts'
import {
  clearAwaits,
  clusterIdOf,
  type Joined,
  openIdentity,
  publicKeys,
  setCopyAside,
  storeJoined,
  thisMachine,
} from './cluster/identity.ts'
import { Jobs } from './cluster/jobs.ts'
import { finishJoin, joinCluster, mayJoin } from './cluster/join.ts'
import { PROTOCOL } from './cluster/link.ts'
import { SystemNetwork } from './cluster/network.ts'
import { patienceOf } from './cluster/patience.ts'
import { beginRebuild, keepPeers, refuseLostState } from './cluster/rebuild.ts'
import { countMembers } from './cluster/roster.ts'
import { ClusterSecrets } from './cluster/secrets.ts'
import { Taken } from './cluster/taken.ts'
import { ClusterTally } from './cluster/tally.ts'
import { readToken } from './cluster/token.ts'
import { type Certificate, hasCertificate, openCertificate } from './config/certificate.ts'
import { LiveConfig } from './config/live.ts'
import { type NodeFile, openDataDirectory, openNodeFile, storeNodeName } from './config/local.ts'
import { isTombstone, type WriterId } from './config/merge.ts'
import { listZones, nameServers } from './config/servers.ts'
import { Bans } from './mail/accept/bans.ts'
import { Directory } from './mail/accept/directory.ts'
import { SmtpListener } from './mail/accept/listener.ts'
import { mailboxes } from './mail/accept/mailboxes.ts'
import { RecipientQuestions } from './mail/deliver/ask.ts'
import { createDeliverer } from './mail/deliver/attempt.ts'
import { probeNextHop } from './mail/deliver/probe.ts'
import { inspectConfigs } from './mail/inspect/config.ts'
import type { Inspectors } from './mail/inspect/contract.ts'
import { Engines } from './mail/inspect/engines/engines.ts'
import { Expander } from './mail/inspect/expand.ts'
import { createInspectors } from './mail/inspect/pool.ts'
import { domainOf } from './mail/inspect/urls.ts'
import { withEngines } from './mail/inspect/whole.ts'
import { checkYara } from './mail/inspect/yara-check.ts'
import { Pipeline } from './mail/pipeline.ts'
import { Signatures } from './mail/signatures.ts'
import type { NodeName } from './message/rows.ts'
import { Audit } from './store/audit.ts'
import { Bodies } from './store/bodies.ts'
import { Changes } from './store/changes.ts'
import { Conflicts } from './store/conflicts.ts'
import { DamagedError } from './store/db.ts'
import { DetectionStore } from './store/detection.ts'
import { Fates } from './store/fates.ts'
import { Greylist } from './store/greylist.ts'
import { IssuedTokens } from './store/invitations.ts'
import { Learned } from './store/learned.ts'
import { Lists } from './store/lists.ts'
import { type NodeNames, nodeName } from './store/names.ts'
import { type Databases, openDatabases, refuseNewerData } from './store/open.ts'
import { Operators } from './store/operators.ts'
import { Quarantine } from './store/quarantine.ts'
import { Queue } from './store/queue.ts'
import type { Message } from './store/queued.ts'
import { Replica } from './store/replica.ts'
import type { Spool } from './store/spool.ts'
import { ApiTokens } from './store/tokens.ts'
import { Trace } from './store/trace.ts'

/** What a simulation replaces. */
export type NodeSeams = {
  readonly clock: Clock
  readonly random: Random
  readonly resolver: Resolver
  readonly network: Network
}

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000
/** Where peers are listened for, TCP and UDP. */
const PEER_PORT = 7_946
/** New formats that this version reads. */
const FEATURES: readonly string[] = []
/** Shared rows that a node keeps when it joins: its held mail. */
const KEPT_KINDS: readonly string[] = ['held']
/** Between the answer to a join and the restart that makes it so. */
const RESTART_MS = 200
/** While a new node waits for the settings of its peers it says so this often. */
const WAITING_SAID_MS = 30_000

/** Inspector processes. What costs is inspection, and this is what has the cores. */
const INSPECTORS = Math.max(1, Math.min(8, navigator.hardwareConcurrency))
/** Attempts that run when the node stops may end for this long; then they are in doubt. */
const STOP_MS_MAX = 5_000
/** A log that nobody reads must not hold up mail: beyond this, lines are dropped (faults.md L20). */
const LOG_BYTES_MAX = 4 * 1024 * 1024
/** Largest request of the web: a form, a list of recipients. */
const REQUEST_BYTES_MAX = 4 * 1024 * 1024

export async function startNode(
  options: NodeOptions,
  seams: Partial<NodeSeams> = {},
): Promise<RunningNode> {
  const clock = seams.clock ?? new SystemClock()
  const random = seams.random ?? new SystemRandom()
  const live = new LiveConfig()
  const ownServers = nameServers(live, () => [])
  const resolver = seams.resolver ?? new SystemResolver(clock, ownServers)
  const network = seams.network ?? new SystemNetwork(clock)
  const observer = new Observer(clock, writeLog, options.logLevel)
  const seam = { clock, random, observer, network }
  const { dataDir } = options
  openDataDirectory(dataDir)
  refuseNewerData(dataDir)
  const lock = lockDirectory(dataDir)
  if (options.identity === 'new') setCopyAside(dataDir, clock)
  const file = openNodeFile(dataDir, {
    random,
    hostname: systemHostname(),
    ...(options.name === null ? {} : { name: options.name }),
  })
  const startedMs = clock.wallMs()
  if (!hasCertificate(dataDir)) await certified(options, file.name)
  const certificate = await openCertificate(dataDir, [file.name], { clock, random })
  // Opened early, so that peers can be told where it is; requests wait until there is a node.
  let setHandle: (handle: Handle) => void = () => {}
  const handling = new Promise<Handle>((resolve) => {
    setHandle = resolve
  })
  const servers = openWeb(options, certificate, async (request, client) =>
    (await handling)(request, client),
  )
  const endpoints = {
    smtp: formatEndpoint(options.smtp.host, options.smtp.port),
    web: servers.url,
  }
  const rows = openRows(options, file, seam)
  const seat = await takeSeat(options, { file, rows, endpoints }, seam)
  const told: Told = { cluster: null, custody: null, holders: null, admin: null }
  const { timeScale } = options
  const store = await openStores(dataDir, { file, seat, rows, live, told, timeScale }, seam)
  const { spool, queue, quarantine, operators } = store
  const engines = new Engines({ clock, observer })
  const timeoutMs = (): number => live.current.settings['dns.timeout'] * 1_000
  const { nameServers: given } = options
  const nameClient = new NameServers({
    clock,
    random,
    observer,
    wire: new SystemDnsWire(),
    servers: nameServers(live, given === undefined ? systemServers(clock) : () => given),
    timeoutMs,
  })
  const names = new ListNames({
    clock,
    observer,
    names: nameClient,
    zones: listZones(live),
    isSilent: () => nameClient.trouble !== null,
  })
  const expandsLinks = (): boolean => live.current.settings['content.expandLinks'] === 'on'
  const pool = createInspectors(
    {
      command: [...options.command, 'inspector'],
      processes: INSPECTORS,
      spoolDir: joinPath(dataDir, 'spool'),
      readable: [learnedDir(dataDir)],
    },
    { clock, observer, names: new Expander({ clock, names, isOn: expandsLinks }) },
  )
  const inspectors = withEngines(pool, engines)
  const problems = (): readonly string[] => [
    ...problemsOf(spool, listener, inspectors, live),
    ...seatProblems(cluster, isWaiting()),
  ]
  const cluster = await startCluster(
    {
      self: seat.self,
      clusterId: seat.clusterId,
      name: seat.name,
      spoolId: file.spoolId,
      advertise: seat.advertise,
      ...endpoints,
      features: FEATURES,
      state: rows.replica,
      trace: store.trace.feed,
      issued: rows.issued,
      report: () => ({
        ready: problems().length === 0,
        queue: queue.size,
        held: quarantine.countOf(file.nodeId),
        diskFreeBytes: spool.diskSpace().freeBytes,
        diskTotalBytes: spool.diskSpace().totalBytes,
        takesCopies: told.custody?.copies.takesCopies ?? false,
        copies: queue.copyCount,
        alone: (told.custody?.copies.alone ?? 0) + (told.holders?.share.alone ?? 0),
        ...(told.admin?.told() ?? { inDoubt: 0, troubles: [] }),
      }),
      awaits: seat.awaits,
      parallelCrypto: true,
      onJump: () => {
        rows.replica.renew()
        store.trace.feed.renew()
      },
    },
    seat.listen,
    options.peer === null,
    seam,
  )
  told.cluster = cluster
  const isWaiting = (): boolean => seat.awaits && !cluster.sync.caughtUp('state')
  followRoster(dataDir, cluster, rows.replica, observer)
  const { links, members, roster } = cluster
  const tally = new ClusterTally({ clock, observer, links, members, roster })
  const deliverer = createDeliverer({ clock, random, resolver, observer })
  const patience = patienceOf(timeScale)
  const { sync, calls } = cluster
  const custody = new Custody(
    {
      self: seat.self,
      cluster,
      queue,
      patience,
      isolation: () => (live.current.settings['cluster.isolation'] === 'hold' ? 'hold' : 'deliver'),
      inDoubtMs: () => live.current.settings['queue.inDoubt'] * 1_000,
      isJoined: () => !isWaiting(),
      isDelivering: () => listener.isListening && spool.failure === null,
      mail: {
        rest: (on) => pipeline.rest(on),
        busy: () => pipeline.attempts + listener.sessions,
        heldLeft: () => heldLeft(holders.takeover),
      },
      adopted: (messages, why, from) =>
        noteAdopted(messages, `${ADOPTED[why]} ${cluster.nameOf(from)}`, {
          clock,
          trace: store.trace,
        }),
    },
    seam,
  )
  told.custody = custody
  const { absences } = custody
  const { candidates } = custody.copies
  const taken = new Taken({
    clock,
    calls,
    roster,
    sync,
    patienceMs: patience.claimMs,
  })
  const jobs = new Jobs({
    clock,
    observer,
    rows: rows.replica,
    roster,
    members,
    patience,
    isCaughtUp: () => sync.caughtUp('state'),
  })
  jobs.add({
    name: 'retention',
    slotMs: DAY_MS,
    run: () => Promise.resolve(`${cluster.invitations.retire()} tokens forgotten`),
  })
  jobs.add({
    name: 'learning',
    slotMs: HOUR_MS,
    run: () => Promise.resolve(`${store.learned.retire()} samples forgotten`),
  })
  const nodes = heldNodes({ clock, cluster, absences, candidates, taken, patience })
  const holders = new HeldHolders({ clock, observer, ...store, nodes, patience })
  told.holders = holders
  const secrets = new ClusterSecrets({ rows: rows.replica, roster, random })
  const pipeline = new Pipeline({
    hostname: seat.name,
    clock,
    random,
    observer,
    live,
    ...store,
    inspectors,
    signatures: new Signatures((domain, selector) => secrets.get(secretName(domain, selector))),
    inspectConfig: inspectConfigs(seat.name, () => store.learned.path),
    deliverer,
    nodeName: (node) => nodeName(store.nodes, node),
    tally,
    tenure: custody.tenure,
    share: holders.share,
    deletedMs: patience.deletedMs,
  })
  const bans = new Bans({ clock, observer, tally })
  const questions = new RecipientQuestions({
    clock,
    random,
    resolver,
    observer,
    hostname: seat.name,
    timeoutMs,
  })
  const directory = new Directory({
    clock,
    observer,
    timeoutMs,
    file: (name) => readIfThere(joinPath(dataDir, name)),
  })
  const listener = new SmtpListener(
    { ...options.smtp, hostname: seat.name, tls: certificate },
    {
      clock,
      observer,
      ids: new MessageIds(file.nodeId, file.epoch, clock),
      live,
      receiver: pipeline.receiver,
      tally,
      greylist: store.greylist,
      names,
      bans,
      exists: mailboxes({ directory, ask: (address, hops) => questions.exists(address, hops) }),
      isPeer: peersOf(cluster),
      domainOf,
      witness: (question) => custody.succession.witness.answer(question),
    },
  )
  const again = Promise.withResolvers<NodeOptions>()
  const { trace } = store
  const decisions = holders.decide({ trace, operators, mail: pipeline })
  answerQueue(cluster.calls, pipeline)
  const admin = createAdmin({
    clock,
    observer,
    live,
    ...store,
    inspectors,
    checkYara: async (source) => {
      const wrong = await checkYara([...options.command, 'inspector'], clock, source)
      if (wrong.length > 0)
        throw new RefusalError(
          'invalid',
          'source',
          wrong.join(' '),
          'Mend the rules and save them again.',
        )
    },
    mail: pipeline,
    decisions,
    takeover: holders.takeover,
    heldNodes: nodes,
    cluster,
    names,
    secrets,
    patience,
    outside: {
      names: () => nameClient.trouble,
      lists: () => names.troubles(),
      bans: () => bans.list(),
      lift: (network) => bans.lift(network),
      engines: () => engines.health(live.current.settings['engines.list']),
    },
    probe: (hop) => probeNextHop(hop, { clock, resolver, hostname: seat.name }),
    door: () => ({
      url: doorOf(options, servers.url, seat.advertise),
      pin: options.web.tls ? certificate.pin : null,
    }),
    remains: () => custody.transfer.remains(),
    join: async (token, discard) => {
      seat.mayJoin(token, discard)
      const { port } = cluster
      // The issuer looks whether it reaches this node at the port of its peers: it must be free.
      cluster.stop()
      try {
        storeJoined(dataDir, await seat.ask(token, discard, { ...seat.listen, port }))
      } finally {
        // Joined or not, the node starts anew, after the answer to whoever asked for it is out.
        clock.after(RESTART_MS, () => again.resolve(asBound(options, { listener, servers, port })))
      }
    },
    status: () => {
      const now = problems()
      return {
        node: file.nodeId,
        name: seat.name,
        version: VERSION,
        ready: now.length === 0,
        problems: now,
        webPin: options.web.tls ? certificate.pin : null,
        startedMs,
        ...endpoints,
        disk: spool.diskSpace(),
      }
    },
  })
  told.admin = admin
  jobs.add({
    name: 'dkim',
    slotMs: HOUR_MS,
    run: async () => `${(await admin.checkWaiting()).length} keys sign from now on`,
  })
  registerGauges(observer, queue, spool, quarantine, inspectors)
  registerClusterGauges(observer, cluster, rows.replica)
  const web = createWeb({
    admin,
    clock,
    random,
    observer,
    secure: options.web.tls,
    nodeName: seat.name,
    ...programOf(options),
  })
  setHandle(web.handle)
  if (seat.awaits) {
    await untilKnown(cluster, isWaiting, { clock, observer })
    store.changes.adopt()
    clearAwaits(dataDir)
  }
  followDrain(cluster, listener)
  listener.start()
  endpoints.smtp = formatEndpoint(options.smtp.host, listener.port)
  cluster.announce(endpoints)
  holders.start(calls)
  await pipeline.resume()
  decisions.start()
  custody.start()
  await untilReady(() => problemsOf(spool, listener, inspectors, live), clock)
  observer.emit('node.started', {
    node: file.nodeId,
    name: seat.name,
    cluster: seat.clusterId,
    ...endpoints,
    peer: formatEndpoint(seat.listen.host, cluster.port),
    version: VERSION,
    ...(options.timeScale === 1 ? {} : { timeScale: options.timeScale }),
  })
  const code = operators.setupCode
  return {
    admin,
    smtp: { host: options.smtp.host, port: listener.port },
    web: { url: servers.url },
    setupUrl: code === null ? null : `${servers.url}/setup?code=${code}`,
    restart: again.promise,
    stop: async () => {
      await listener.stop()
      await holders.stop()
      await pipeline.stop(STOP_MS_MAX)
      await deliverer.close()
      questions.close()
      await directory.close()
      web.close()
      await servers.stop()
      tally.close()
      jobs.stop()
      custody.stop()
      cluster.stop()
      await inspectors.close()
      nameClient.close()
      await store.close()
      rows.close()
      observer.emit('node.stopped')
      observer.flush()
      lock.release()
    },
  }
}

/** In a process of its own: 6 MB less in this one. Should that fail, the pair is made here. */
async function certified({ command, dataDir }: NodeOptions, name: string): Promise<void> {
  const words = [...command, 'certificate', dataDir, name]
  const child = Bun.spawn(words, { stdin: 'ignore', stdout: 'ignore', stderr: 'ignore' })
  await child.exited
}

/** What is told of this node before all of it is built; null until it is. */
type Told = {
  cluster: Cluster | null
  custody: Custody | null
  holders: HeldHolders | null
  admin: Pick<ReturnType<typeof createAdmin>, 'told'> | null
}

/** Both databases, and what all nodes share. Settings, operators and claims are synced at each
 * commit; the trace at its checkpoints only: it repeats what the spool and the claims know. */
function openRows(
  options: NodeOptions,
  { nodeId: node, name }: NodeFile,
  seam: { readonly clock: Clock; readonly random: Random; readonly observer: Observer },
) {
  const { state, trace } = openOrRebuild(options, { node, name }, seam)
  const replica = new Replica(state, { ...seam, node })
  return {
    state,
    history: trace,
    replica,
    issued: new IssuedTokens(state),
    close: () => {
      state.close()
      trace.close()
    },
  }
}

/** A state that is lost is read anew from the peers, when a person says so. */
function openOrRebuild(
  { dataDir, rebuildState }: NodeOptions,
  self: { readonly node: NodeId; readonly name: string },
  seam: { readonly clock: Clock; readonly observer: Observer },
): Databases {
  try {
    refuseLostState(dataDir)
    return openDatabases(dataDir, seam)
  } catch (error) {
    if (!rebuildState || !(error instanceof DamagedError)) throw error
    const moved = beginRebuild(dataDir, self, seam.clock)
    seam.observer.emit('state.replaced', { moved, cause: messageOf(error) })
    return openDatabases(dataDir, seam)
  }
}

type Rows = ReturnType<typeof openRows>

/** Who this node is among others: its keys, its cluster, where it is reached. */
type Seat = {
  readonly self: Self
  readonly clusterId: string
  readonly name: string
  readonly listen: Address
  readonly advertise: readonly Address[]
  /** It founded the cluster that it is in, and has what it knew. */
  readonly isFounder: boolean
  /** The settings of the cluster are still to be read from a peer. */
  readonly awaits: boolean
  /** @throws RefusalError when this node cannot join with that token at all */
  readonly mayJoin: (token: string, discard: boolean) => void
  /** Asks the issuer of a token to be let in; changes nothing here. */
  readonly ask: (token: string, discard: boolean, listen: Address) => Promise<Joined>
}

/** Before anything reads the shared rows: a join replaces them. */
async function takeSeat(
  options: NodeOptions,
  given: {
    readonly file: NodeFile
    readonly rows: Rows
    readonly endpoints: { readonly smtp: string; readonly web: string }
  },
  seam: ClusterDeps,
): Promise<Seat> {
  const { dataDir, join } = options
  const { file, rows, endpoints } = given
  const { replica, issued } = rows
  const identity = openIdentity(dataDir, file.nodeId, {
    random: seam.random,
    machine: thisMachine(process.env),
    adopt: options.identity === 'adopt',
  })
  const self = {
    node: file.nodeId,
    keys: identity.keys,
    instance: replica.writer,
    epoch: file.epoch,
    version: VERSION,
  }
  const wanted = options.peer ?? { host: '0.0.0.0', port: PEER_PORT }
  // The issuer looks at the port that peers will dial: any port must be one before it is asked.
  const listen = join !== null && wanted.port === 0 ? await anyPort(wanted, seam) : wanted
  const { advertise } = options
  let { clusterId, awaits } = identity
  let name = file.name
  const standing = (discard: boolean) => ({
    clusterId,
    members: countMembers(replica),
    own: { operators: living(replica, 'operator'), domains: living(replica, 'domain') },
    discard,
  })
  const ask = (token: string, discard: boolean, at: Address): Promise<Joined> =>
    joinCluster(
      token,
      {
        self,
        ...standing(discard),
        listen: at,
        facts: { name, peer: advertise, ...endpoints, version: VERSION, features: FEATURES },
        protocol: PROTOCOL,
      },
      seam,
    )
  const take = (joined: Joined): void => {
    finishJoin(dataDir, joined, KEPT_KINDS, { state: replica, issued })
    clusterId = joined.clusterId
    awaits = true
    if (options.name === null) storeNodeName(dataDir, joined.name)
    name = options.name ?? joined.name
  }
  if (identity.joined !== null) take(identity.joined)
  // The option stays in units and scripts: used once, on the first start.
  if (join !== null && readToken(join).clusterId !== clusterId) {
    take(await ask(join, false, listen))
  }
  return {
    self,
    clusterId,
    name,
    listen,
    advertise,
    isFounder: !awaits && clusterIdOf(self.node, publicKeys(self.keys)) === clusterId,
    awaits,
    mayJoin: (token, discard) => mayJoin(readToken(token), standing(discard)),
    ask,
  }
}

/** The binary that this is; from source there is none. */
function programOf({ command: [program, ...rest] }: NodeOptions): { readonly program?: string } {
  return program === undefined || rest.length > 0 ? {} : { program }
}

async function anyPort({ host }: Address, { network }: ClusterDeps): Promise<Address> {
  const { port, close } = await network.listen({ host, port: 0 }, () => NOBODY)
  close()
  return { host, port }
}

const NOBODY: StreamHandlers = { received: () => {}, drained: () => {}, closed: () => {} }

/** How many there are of a kind; a key with a slash is a part of one. */
function living(replica: Replica, kind: string): number {
  return replica.list(kind).filter(({ key, state }) => !key.includes('/') && !isTombstone(state))
    .length
}

/** The default port may be another node's on the same machine: then any will do, and is said. */
async function startCluster(
  options: Omit<ClusterOptions, 'listen'>,
  listen: Address,
  isDefault: boolean,
  seam: ClusterDeps,
): Promise<Cluster> {
  try {
    return await Cluster.start({ ...options, listen }, seam)
  } catch (error) {
    if (!isDefault || !(error instanceof RefusalError) || error.code !== 'conflict') throw error
    const cluster = await Cluster.start({ ...options, listen: { ...listen, port: 0 } }, seam)
    seam.observer.emit('node.moved', { cause: messageOf(error), port: cluster.port })
    return cluster
  }
}

/** Who is in the cluster is written beside the database, for the day when that is lost. */
function followRoster(
  dataDir: string,
  { roster }: Cluster,
  replica: Replica,
  observer: Observer,
): void {
  const keep = (): void => {
    try {
      keepPeers(dataDir, roster, replica)
    } catch (error) {
      if (!(error instanceof StoreError)) throw error
      observer.emit('store.failed', { cause: messageOf(error) })
    }
  }
  roster.onChange(keep)
  keep()
}

/** Without the state of its peers a new node would refuse everybody: no domain is known yet. */
async function untilKnown(
  cluster: Cluster,
  isWaiting: () => boolean,
  { clock, observer }: { readonly clock: Clock; readonly observer: Observer },
): Promise<void> {
  let saidMono = clock.monoMs()
  while (isWaiting()) {
    await pause(clock, 10)
    if (clock.monoMs() - saidMono < WAITING_SAID_MS) continue
    saidMono = clock.monoMs()
    const cause = cluster.roster
      .peers()
      .map(({ node }) =>
        cluster.sync.isWaiting(node)
          ? `${cluster.nameOf(node)}, which waits itself`
          : cluster.describe(node),
      )
      .join('; ')
    observer.emit('node.waiting', { cause })
  }
}

/** Why the cluster keeps this node from taking mail. */
function seatProblems(cluster: Cluster, isWaiting: boolean): readonly string[] {
  const { node } = cluster.roster.self
  const me = cluster.roster.get(node)
  if (me?.standing === 'left') return ['This node has left the cluster.']
  if (me?.standing === 'evicted') return ['This node was removed from the cluster.']
  if (cluster.removedBy !== null) {
    const who = cluster.nameOf(cluster.removedBy)
    return [`This node was removed from the cluster: ${who} refuses it.`]
  }
  if (isWaiting) return [waitingProblem(cluster)]
  if (me !== null && me.drain !== 'accepting') return [`This node is ${me.drain}.`]
  return []
}

function waitingProblem({ roster, sync }: Cluster): string {
  const waits = 'The settings of the cluster are not here yet'
  return roster.peers().every(({ node }) => sync.isWaiting(node))
    ? `${waits}, and all other nodes wait for them too: they are lost, but for a backup.`
    : `${waits}.`
}

/** Whether a client at port 25 has the address of another node. */
function peersOf({ roster }: Cluster): (ip: string) => boolean {
  return (ip) =>
    roster
      .members()
      .some(({ node, peer }) => node !== roster.self.node && peer.some(({ host }) => host === ip))
}

/** Closes port 25 to new mail while this node is drained. */
function followDrain(cluster: Cluster, listener: SmtpListener): void {
  const { roster } = cluster
  const { node } = roster.self
  const look = (): void => {
    const me = roster.get(node)
    const isMember = me !== null && me.standing === 'member' && cluster.removedBy === null
    listener.drain(!isMember || me.drain !== 'accepting')
  }
  roster.onChange(look)
  cluster.links.onRefused(look)
  look()
}

/** How a message came to another owner, for its history; the name of the former one follows. */
const ADOPTED: Readonly<Record<AdoptedWhy | 'transfer', string>> = {
  refused: 'confirmed dead:',
  removed: 'removed from the cluster:',
  respooled: 'came back without its spool:',
  silent: 'silent:',
  transfer: 'handed over by',
}

function noteAdopted(
  messages: readonly Message[],
  detail: string,
  { clock, trace }: { readonly clock: Clock; readonly trace: Trace },
): void {
  const atMs = clock.wallMs()
  for (const { id } of messages) trace.note(id, { atMs, recipient: null, what: 'adopted', detail })
}

/** Held mail that this node still decides about while it leaves; asks the others to take it. */
function heldLeft(takeover: HeldHolders['takeover']): number {
  const left = takeover.heldToMove()
  if (left > 0) void takeover.moveHeld()
  return left
}

/** As a new machine reaches the web of this node. */
function doorOf(options: NodeOptions, url: string, advertise: readonly Address[]): string {
  const { host } = options.web
  const [best] = advertise
  if ((host !== '0.0.0.0' && host !== '::') || best === undefined) return url
  const { protocol, port } = new URL(url)
  return `${protocol}//${formatEndpoint(best.host, Number(port))}`
}

/** The same node again, at the ports that it had. */
function asBound(
  options: NodeOptions,
  bound: {
    readonly listener: SmtpListener
    readonly servers: { readonly port: number }
    readonly port: number
  },
): NodeOptions {
  const peer = options.peer === null ? null : { ...options.peer, port: bound.port }
  return {
    ...options,
    smtp: { ...options.smtp, port: bound.listener.port },
    web: { ...options.web, port: bound.servers.port },
    peer,
    join: null,
    identity: 'keep',
    rebuildState: false,
  }
}

type Stores = {
  readonly spool: Spool
  readonly queue: Queue
  readonly bodies: Bodies
  readonly quarantine: Quarantine
  readonly greylist: Greylist
  readonly trace: Trace
  readonly changes: Changes
  readonly conflicts: Conflicts
  readonly lists: Lists
  readonly detection: DetectionStore
  readonly learned: Learned
  readonly audit: Audit
  readonly tokens: ApiTokens
  readonly operators: Operators
  readonly nodes: NodeNames
  readonly close: () => Promise<void>
}

/** Of the counts of what was learnt, which the inspectors read. */
function learnedDir(dataDir: string): string {
  return joinPath(dataDir, 'learned')
}

/** Opens everything that survives a restart, and puts the stored configuration in force. */
async function openStores(
  dataDir: string,
  given: {
    readonly file: NodeFile
    readonly seat: Seat
    readonly rows: Rows
    readonly live: LiveConfig
    readonly timeScale: number
    /** Null until it runs. */
    readonly told: { readonly cluster: Cluster | null }
  },
  deps: { readonly clock: Clock; readonly random: Random; readonly observer: Observer },
): Promise<Stores> {
  const { clock, observer } = deps
  const { file, seat, rows, live, told } = given
  const { state, history, replica } = rows
  const node = { id: file.nodeId, name: seat.name }
  const nodes = (): readonly NodeName[] => {
    const roster = told.cluster?.roster
    return roster === undefined ? [node] : [...roster.members(), ...roster.former()].map(named)
  }
  const nodeNameOf = (writer: WriterId): string => {
    const id = writerNode(replica.owned('writer', writer)?.value ?? null)
    return id === null ? '' : nodeName(nodes, id).name
  }
  const changes = new Changes(state, replica, live, {
    ...deps,
    nodeNameOf,
    readOnlyBecause: () => told.cluster?.sync.clockTrouble() ?? null,
  })
  const conflicts = new Conflicts(replica, changes, { observer, nodeNameOf })
  const audit = new Audit(state, replica, { clock })
  const operators = new Operators(replica, changes, dataDir, {
    ...deps,
    audit,
    maySetUp: () => seat.isFounder,
  })
  const tokens = new ApiTokens(replica, changes, audit, deps)
  const bodies = new Bodies(dataDir, deps)
  const quarantine = new Quarantine(state, replica, { clock, observer, node, nodes })
  const greylist = new Greylist(replica, { clock, observer })
  const learned = new Learned(state, replica, { ...deps, directory: learnedDir(dataDir) })
  const trace = new Trace(history, {
    ...deps,
    node,
    nodes,
    keepMs: () => live.current.settings['trace.keep'] * 86_400_000,
  })
  replica.start()
  learned.start()
  changes.load()
  conflicts.load()
  operators.load()
  tokens.load()
  const { damaged } = await quarantine.rebuild(bodies)
  for (const id of damaged)
    observer.emit('store.failed', { message: id, cause: 'held file is damaged' })
  const fates = new Fates(state, { clock, keepMs: patienceOf(given.timeScale).fatesMs })
  const spoolDir = joinPath(dataDir, 'spool')
  mkdirSync(spoolDir, { recursive: true, mode: 0o700 })
  const syncs = process.env['POSTERN_TEST_NO_SYNC'] !== '1'
  if (!syncs)
    observer.emit('node.failed', { cause: 'POSTERN_TEST_NO_SYNC is set: mail will be lost' })
  const { queue, spool } = await Queue.open(
    {
      dir: spoolDir,
      spoolId: file.spoolId,
      clock,
      observer,
      freeSpace: () => diskSpace(spoolDir),
      disk: syncs ? systemDisk : { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: (error) => fallWith(error, observer, clock),
    },
    {
      clock,
      observer,
      node: file.nodeId,
      fates,
      copies: () => {
        const roster = told.cluster?.roster
        const hasOthers = roster !== undefined && roster.peers().length + roster.former().length > 0
        if (!hasOthers) return 'none'
        return live.current.settings['cluster.copies'] === 'require' ? 'require' : 'prefer'
      },
    },
  )
  observer.emit('spool.opened', { messages: queue.size, segments: spool.segmentCount })
  return {
    spool,
    queue,
    bodies,
    quarantine,
    greylist,
    trace,
    changes,
    conflicts,
    lists: new Lists(replica, changes),
    detection: new DetectionStore(replica, changes, live),
    learned,
    audit,
    tokens,
    operators,
    nodes,
    close: async () => {
      await spool.close()
      fates.close()
      greylist.close()
      learned.close()
      quarantine.close()
      trace.close()
    },
  }
}

/**
 * A spool that failed cannot be trusted again in this process: what runs gets its 451, then the
 * process ends, and its supervisor starts it anew on what is really on the disk.
 */
function fallWith(error: Error, observer: Observer, clock: Clock): void {
  observer.emit('node.failed', { cause: messageOf(error) })
  observer.flush()
  clock.after(1_000, () => {
    throw error
  })
}

/** Why this node should get no mail now; empty when it should. Tests the thing itself. */
function problemsOf(
  spool: Spool,
  listener: SmtpListener,
  inspectors: Inspectors,
  live: LiveConfig,
): readonly string[] {
  const problems: string[] = []
  const { settings } = live.current
  if (spool.failure !== null) problems.push(`The spool has failed: ${spool.failure.message}.`)
  else if (!spool.hasRoom(settings['mail.size']))
    problems.push('The disk is full up to its reserve.')
  if (!listener.isListening) problems.push('The SMTP port is not open.')
  if (settings['inspect.inspectors'].length > 0 && inspectors.health().ready === 0) {
    problems.push('No inspector answers.')
  }
  return problems
}

async function untilReady(problems: () => readonly string[], clock: Clock): Promise<void> {
  const deadlineMono = clock.monoMs() + 10_000
  while (problems().includes('No inspector answers.') && clock.monoMs() < deadlineMono) {
    await pause(clock, 5)
  }
}

function registerGauges(
  observer: Observer,
  queue: Queue,
  spool: Spool,
  quarantine: Quarantine,
  inspectors: Inspectors,
): void {
  observer.gauge('queue_messages', 'Messages in the spool that are not final', () => queue.size)
  observer.gauge('held_messages', 'Messages in quarantine', () => quarantine.count())
  observer.gauge('spool_segments', 'Spool segments, free ones included', () => spool.segmentCount)
  observer.gauge(
    'spool_backlog_bytes',
    'Bytes handed to the spool and not written',
    () => spool.backlogBytes,
  )
  observer.gauge(
    'spool_free_bytes',
    'Free bytes of the disk of the spool',
    () => spool.diskSpace().freeBytes,
  )
  observer.gauge(
    'inspectors_ready',
    'Inspector processes that answer',
    () => inspectors.health().ready,
  )
  observer.gauge('memory_resident_bytes', 'Resident memory of the main process', () =>
    process.memoryUsage.rss(),
  )
}

function named({ node, name }: { readonly node: NodeId; readonly name: string }): NodeName {
  return { id: node, name }
}

/** Whose row of kind `writer` this is. */
function writerNode(value: string | null): NodeId | null {
  if (value === null) return null
  const { node } = JSON.parse(value) as { readonly node?: unknown }
  return parseNodeId(String(node))
}

function registerClusterGauges(observer: Observer, cluster: Cluster, replica: Replica): void {
  const { roster, sync, members } = cluster
  const peers = () => roster.peers().map(({ node }) => node)
  observer.gauge('nodes', 'Members of the cluster, this one included', () => peers().length + 1)
  observer.gauge(
    'nodes_alive',
    'Members that are alive, this one included',
    () => peers().filter((node) => members.get(node)?.life === 'alive').length + 1,
  )
  observer.gauge('sync_lag_rows', 'Writes that the slowest peer has not taken', () =>
    Math.max(0, ...peers().map((node) => sync.lagOf(node).rows)),
  )
  observer.gauge('sync_lag_ms', 'Age of the oldest of them', () =>
    Math.max(0, ...peers().map((node) => sync.lagOf(node).ms)),
  )
  observer.gauge('sync_parked_rows', 'Rows that wait for their time', () => replica.parked)
}

type Handle = (
  request: Request,
  client: { readonly ip: string; readonly trusted: boolean },
) => Promise<Response>

/** The web on its port, and the same on DIR/control.sock for whoever owns the directory. */
function openWeb(
  options: NodeOptions,
  certificate: Certificate,
  handle: Handle,
): { readonly url: string; readonly port: number; readonly stop: () => Promise<void> } {
  const { host, port, tls } = options.web
  const socket = joinPath(options.dataDir, 'control.sock')
  if (existsSync(socket)) unlinkSync(socket)
  const control = Bun.serve({
    unix: socket,
    maxRequestBodySize: REQUEST_BYTES_MAX,
    fetch: (request) => handle(request, { ip: '', trusted: true }),
  })
  chmodSync(socket, 0o600)
  try {
    const server = Bun.serve({
      hostname: host,
      port,
      maxRequestBodySize: REQUEST_BYTES_MAX,
      ...(tls ? { tls: { key: certificate.key, cert: certificate.cert } } : {}),
      fetch: (request, running) =>
        handle(request, { ip: running.requestIP(request)?.address ?? '', trusted: false }),
    })
    const shown = host === '0.0.0.0' || host === '::' ? systemHostname() : host
    return {
      port: server.port ?? port,
      url: `${tls ? 'https' : 'http'}://${formatEndpoint(shown, server.port ?? port)}`,
      stop: async () => {
        await server.stop(true)
        await control.stop(true)
        if (existsSync(socket)) unlinkSync(socket)
      },
    }
  } catch (error) {
    void control.stop(true)
    throw new RefusalError(
      'conflict',
      'web',
      `Cannot listen on ${host}:${port}: ${messageOf(error)}.`,
      `Stop what uses port ${port}, or choose another one with --web HOST:PORT.`,
    )
  }
}

function writeLog(lines: string): void {
  if (process.stderr.writableLength < LOG_BYTES_MAX) process.stderr.write(lines)
}
