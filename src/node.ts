/**
 * Composition root: builds one node out of clock, random, resolver and network, and joins what
 * must not know each other. Without peers a node is a cluster of one. The parts are put together
 * in `node/`; here is the order in which they start and stop.
 */
import { hostname as systemHostname } from 'node:os'
import { createWeb } from '../web/server.ts'
import type { NodeAdmin } from './admin/admin.ts'
import { answerQueue } from './admin/queue-peers.ts'
import { type Clock, SystemClock } from './base/clock.ts'
import { type Resolver, SystemResolver } from './base/dns.ts'
import { formatEndpoint } from './base/endpoint.ts'
import { lockDirectory } from './base/files.ts'
import type { NodeId } from './base/ids.ts'
import { Observer } from './base/observe.ts'
import { type Random, SystemRandom } from './base/random.ts'
import { VERSION } from './base/version.ts'
import type { NodeOptions, RunningNode } from './cli/world.ts'
import type { Cluster } from './cluster/cluster.ts'
import type { Network, NodeReport } from './cluster/contract.ts'
import { clearAwaits, setCopyAside, storeJoined } from './cluster/identity.ts'
import { SystemNetwork } from './cluster/network.ts'
import { LiveConfig } from './config/live.ts'
import { openDataDirectory, openNodeFile } from './config/local.ts'
import { nameServers } from './config/servers.ts'
import type { SmtpListener } from './mail/accept/listener.ts'
import { Engines } from './mail/inspect/engines/engines.ts'
import { openAdmin } from './node/admin.ts'
import { followDrain, followRoster, startCluster, untilKnown } from './node/cluster.ts'
import { type Duties, takeDuties } from './node/duties.ts'
import { registerClusterGauges, registerGauges } from './node/gauges.ts'
import { openInspectors, openMail } from './node/mail.ts'
import { openNames } from './node/names.ts'
import { problemsOf, seatProblems, untilReady } from './node/problems.ts'
import { takeSeat } from './node/seat.ts'
import { openRows, openStores, type Stores } from './node/stores.ts'
import { certificateOf, doorOf, openWeb, programOf } from './node/web.ts'
import { refuseNewerData } from './store/open.ts'

/** What a simulation replaces. */
export type NodeSeams = {
  readonly clock: Clock
  readonly random: Random
  readonly resolver: Resolver
  readonly network: Network
}

/** Between the answer to a join and the restart that makes it so. */
const RESTART_MS = 200
/** Attempts that run when the node stops may end for this long; then they are in doubt. */
const STOP_MS_MAX = 5_000
/** A log that nobody reads must not hold up mail: beyond this, lines are dropped (faults.md L20). */
const LOG_BYTES_MAX = 4 * 1024 * 1024

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
  const { dataDir, timeScale } = options
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
  const certificate = await certificateOf(options, file.name, { clock, random })
  const webPin = options.web.tls ? certificate.pin : null
  const servers = openWeb(options, certificate)
  const endpoints = {
    smtp: formatEndpoint(options.smtp.host, options.smtp.port),
    web: servers.url,
  }
  const rows = openRows(options, file, seam)
  const seat = await takeSeat(options, { file, rows, endpoints }, seam)
  const told: Told = { cluster: null, duties: null, admin: null }
  const store = await openStores(dataDir, { file, seat, rows, live, told, timeScale }, seam)
  const { spool, queue, quarantine, operators, trace } = store
  const engines = new Engines({ clock, observer })
  const names = openNames(live, options.nameServers, { clock, random, observer })
  const isWhole = (): boolean => told.cluster?.sync.caughtUp('trace') ?? false
  const inspectors = openInspectors(
    options,
    { engines, names, live, trace, isWhole },
    { clock, observer },
  )
  const ownProblems = (): readonly string[] => problemsOf(spool, mail.listener, inspectors, live)
  const problems = (): readonly string[] => [
    ...ownProblems(),
    ...seatProblems(cluster, isWaiting()),
  ]
  const report = (): NodeReport => ({
    ready: problems().length === 0,
    ...reportOf(store, file.nodeId, told),
  })
  const given = { file, seat, rows, trace, endpoints, report }
  const cluster = await startCluster(options, given, seam)
  told.cluster = cluster
  const isWaiting = (): boolean => seat.awaits && !cluster.sync.caughtUp('state')
  followRoster(dataDir, cluster, rows.replica, observer)
  const duties = takeDuties(
    {
      seat,
      rows,
      store,
      live,
      cluster,
      timeScale,
      isWaiting,
      isDelivering: () => mail.listener.isListening && spool.failure === null,
      mail: {
        rest: (on) => mail.pipeline.rest(on),
        busy: () => mail.pipeline.attempts + mail.listener.sessions,
      },
    },
    seam,
  )
  told.duties = duties
  const { custody, holders, jobs, tally } = duties
  const mail = openMail(
    options,
    {
      hostname: seat.name,
      file,
      certificate,
      live,
      rows,
      store,
      names,
      inspectors,
      cluster,
      duties,
    },
    { clock, random, resolver, observer },
  )
  const { pipeline, listener } = mail
  const again = Promise.withResolvers<NodeOptions>()
  const decisions = holders.decide({ trace, operators, mail: pipeline })
  answerQueue(cluster.calls, pipeline)
  const admin = openAdmin(
    options,
    {
      seat,
      live,
      store,
      names,
      engines,
      inspectors,
      cluster,
      duties,
      mail,
      decisions,
      door: () => ({ url: doorOf(options, servers.url, seat.advertise), pin: webPin }),
      join: async (token, discard) => {
        seat.mayJoin(token, discard)
        const { port } = cluster
        // The issuer looks whether it reaches this node at the port of its peers: it must be free.
        cluster.stop()
        try {
          storeJoined(dataDir, await seat.ask(token, discard, { ...seat.listen, port }))
        } finally {
          // Joined or not, the node starts anew, after the answer to whoever asked for it is out.
          clock.after(RESTART_MS, () =>
            again.resolve(asBound(options, { listener, servers, port })),
          )
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
          webPin,
          startedMs,
          ...endpoints,
          disk: spool.diskSpace(),
        }
      },
    },
    { clock, resolver, observer },
  )
  told.admin = admin
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
  servers.serve(web.handle)
  if (seat.awaits) {
    await untilKnown(cluster, isWaiting, { clock, observer })
    store.changes.adopt()
    clearAwaits(dataDir)
  }
  followDrain(cluster, listener)
  listener.start()
  endpoints.smtp = formatEndpoint(options.smtp.host, listener.port)
  cluster.announce(endpoints)
  holders.start(cluster.calls)
  await pipeline.resume()
  decisions.start()
  custody.start()
  await untilReady(ownProblems, clock)
  observer.emit('node.started', {
    node: file.nodeId,
    name: seat.name,
    cluster: seat.clusterId,
    ...endpoints,
    peer: formatEndpoint(seat.listen.host, cluster.port),
    version: VERSION,
    ...(timeScale === 1 ? {} : { timeScale }),
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
      await mail.deliverer.close()
      mail.questions.close()
      await mail.directory.close()
      web.close()
      await servers.stop()
      tally.close()
      jobs.stop()
      custody.stop()
      cluster.stop()
      await inspectors.close()
      names.client.close()
      await store.close()
      rows.close()
      observer.emit('node.stopped')
      observer.flush()
      lock.release()
    },
  }
}

/** What is told of this node before all of it is built; null until it is. */
type Told = {
  cluster: Cluster | null
  duties: Pick<Duties, 'custody' | 'holders'> | null
  admin: Pick<NodeAdmin, 'told'> | null
}

/** What its peers hear of it, beside whether it is ready. */
function reportOf(store: Stores, self: NodeId, { duties, admin }: Told): Omit<NodeReport, 'ready'> {
  const { queue, quarantine, spool } = store
  return {
    queue: queue.size,
    held: quarantine.countOf(self),
    diskFreeBytes: spool.diskSpace().freeBytes,
    diskTotalBytes: spool.diskSpace().totalBytes,
    takesCopies: duties?.custody.copies.takesCopies ?? false,
    copies: queue.copyCount,
    alone: (duties?.custody.copies.alone ?? 0) + (duties?.holders.share.alone ?? 0),
    ...(admin?.told() ?? { inDoubt: 0, troubles: [] }),
  }
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

function writeLog(lines: string): void {
  if (process.stderr.writableLength < LOG_BYTES_MAX) process.stderr.write(lines)
}
