/**
 * Composition root: builds one node out of clock, random and resolver, and joins what must not
 * know each other. Without peers a node is a cluster of one.
 */
import { chmodSync, existsSync, mkdirSync, unlinkSync } from 'node:fs'
import { hostname as systemHostname } from 'node:os'
import { join } from 'node:path'
import { createWeb } from '../web/server.ts'
import { createAdmin } from './admin/admin.ts'
import { type Clock, pause, SystemClock } from './base/clock.ts'
import { type Resolver, SystemResolver } from './base/dns.ts'
import { messageOf, RefusalError } from './base/errors.ts'
import { diskSpace, lockDirectory, systemDisk } from './base/files.ts'
import { MessageIds } from './base/ids.ts'
import { Observer } from './base/observe.ts'
import { type Random, SystemRandom } from './base/random.ts'
import { VERSION } from './base/version.ts'
import type { NodeOptions, RunningNode } from './cli/world.ts'
import { type Certificate, openCertificate } from './config/certificate.ts'
import { LiveConfig } from './config/live.ts'
import { type NodeFile, openDataDirectory, openNodeFile } from './config/local.ts'
import { formatEndpoint, SmtpListener } from './mail/accept/listener.ts'
import { createDeliverer } from './mail/deliver/attempt.ts'
import { probeNextHop } from './mail/deliver/probe.ts'
import type { Inspectors } from './mail/inspect/contract.ts'
import { createInspectors } from './mail/inspect/pool.ts'
import { Pipeline } from './mail/pipeline.ts'
import { Audit } from './store/audit.ts'
import { Bodies } from './store/bodies.ts'
import { Changes } from './store/changes.ts'
import { Conflicts } from './store/conflicts.ts'
import { Lists } from './store/lists.ts'
import { openDatabases, refuseNewerData } from './store/open.ts'
import { Operators } from './store/operators.ts'
import { Quarantine } from './store/quarantine.ts'
import { Queue } from './store/queue.ts'
import { Replica } from './store/replica.ts'
import type { Spool } from './store/spool.ts'
import { ApiTokens } from './store/tokens.ts'
import { Trace } from './store/trace.ts'

/** What a simulation replaces. */
export type NodeSeams = {
  readonly clock: Clock
  readonly random: Random
  readonly resolver: Resolver
}

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
  const resolver = seams.resolver ?? new SystemResolver(clock)
  const observer = new Observer(clock, writeLog, options.logLevel)
  const { dataDir } = options
  openDataDirectory(dataDir)
  refuseNewerData(dataDir)
  const lock = lockDirectory(dataDir)
  const identity = openNodeFile(dataDir, {
    random,
    hostname: systemHostname(),
    ...(options.name === null ? {} : { name: options.name }),
  })
  const startedMs = clock.wallMs()
  const live = new LiveConfig()
  const store = await openStores(dataDir, identity, live, { clock, random, observer })
  const inspectors = createInspectors(
    {
      command: [...options.command, 'inspector'],
      processes: INSPECTORS,
      spoolDir: join(dataDir, 'spool'),
    },
    { clock, observer },
  )
  const certificate = await openCertificate(dataDir, [identity.name], { clock, random })
  const deliverer = createDeliverer({ clock, random, resolver, observer })
  const pipeline = new Pipeline({
    hostname: identity.name,
    clock,
    random,
    observer,
    live,
    ...store,
    inspectors,
    deliverer,
  })
  const listener = new SmtpListener(
    { ...options.smtp, hostname: identity.name, tls: certificate },
    {
      clock,
      observer,
      ids: new MessageIds(identity.nodeId, identity.epoch, clock),
      live,
      receiver: pipeline.receiver,
    },
  )
  const endpoints = { smtp: '', web: '' }
  const admin = createAdmin({
    clock,
    observer,
    live,
    ...store,
    inspectors,
    mail: pipeline,
    probe: (hop) => probeNextHop(hop, { clock, resolver, hostname: identity.name }),
    status: () => {
      const problems = problemsOf(store.spool, listener, inspectors, live)
      return {
        node: identity.nodeId,
        name: identity.name,
        version: VERSION,
        ready: problems.length === 0,
        problems,
        webPin: options.web.tls ? certificate.pin : null,
        startedMs,
        smtp: endpoints.smtp,
        web: endpoints.web,
        disk: store.spool.diskSpace(),
      }
    },
  })
  registerGauges(observer, store.queue, store.spool, store.quarantine, inspectors)
  const web = createWeb({
    admin,
    clock,
    random,
    observer,
    secure: options.web.tls,
    nodeName: identity.name,
  })
  const servers = openWeb(options, certificate, web.handle)
  endpoints.web = servers.url
  listener.start()
  endpoints.smtp = formatEndpoint(options.smtp.host, listener.port)
  await pipeline.resume()
  await untilReady(() => problemsOf(store.spool, listener, inspectors, live), clock)
  observer.emit('node.started', {
    node: identity.nodeId,
    name: identity.name,
    ...endpoints,
    version: VERSION,
  })
  const code = store.operators.setupCode
  return {
    admin,
    smtp: { host: options.smtp.host, port: listener.port },
    web: { url: servers.url },
    setupUrl: code === null ? null : `${servers.url}/setup?code=${code}`,
    stop: async () => {
      await listener.stop()
      await pipeline.stop(STOP_MS_MAX)
      await deliverer.close()
      web.close()
      await servers.stop()
      await inspectors.close()
      await store.close()
      observer.emit('node.stopped')
      observer.flush()
      lock.release()
    },
  }
}

type Stores = {
  readonly spool: Spool
  readonly queue: Queue
  readonly bodies: Bodies
  readonly quarantine: Quarantine
  readonly trace: Trace
  readonly rows: Replica
  readonly changes: Changes
  readonly conflicts: Conflicts
  readonly lists: Lists
  readonly tokens: ApiTokens
  readonly operators: Operators
  readonly close: () => Promise<void>
}

/**
 * Opens everything that survives a restart. Settings, operators and claims are synced at each
 * commit; the trace at its checkpoints only: it repeats what the spool and the claims know.
 */
async function openStores(
  dataDir: string,
  identity: NodeFile,
  live: LiveConfig,
  deps: { readonly clock: Clock; readonly random: Random; readonly observer: Observer },
): Promise<Stores> {
  const { clock, observer } = deps
  const { state, trace: history } = openDatabases(dataDir, { clock, observer })
  const node = { id: identity.nodeId, name: identity.name }
  const rows = new Replica(state, { ...deps, node: node.id })
  const shared = {
    ...deps,
    nodeNameOf: () => node.name,
    readOnlyBecause: () => null,
    maySetUp: () => true,
  }
  const audit = new Audit(state, rows, shared)
  const changes = new Changes(state, rows, live, shared)
  const conflicts = new Conflicts(rows, changes, shared)
  const lists = new Lists(rows, changes)
  const tokens = new ApiTokens(rows, changes, audit, shared)
  const operators = new Operators(rows, changes, dataDir, { ...shared, audit })
  rows.start()
  for (const part of [changes, conflicts, tokens, operators]) part.load()
  const bodies = new Bodies(dataDir, deps)
  const quarantine = new Quarantine(state, { clock, observer, node })
  const { damaged } = await quarantine.rebuild(bodies)
  for (const id of damaged)
    observer.emit('store.failed', { message: id, cause: 'held file is damaged' })
  const trace = new Trace(history, {
    ...deps,
    node,
    keepMs: () => live.current.settings['trace.keep'] * 86_400_000,
  })
  const spoolDir = join(dataDir, 'spool')
  mkdirSync(spoolDir, { recursive: true, mode: 0o700 })
  const syncs = process.env['POSTERN_TEST_NO_SYNC'] !== '1'
  if (!syncs)
    observer.emit('node.failed', { cause: 'POSTERN_TEST_NO_SYNC is set: mail will be lost' })
  const { queue, spool } = await Queue.open(
    {
      dir: spoolDir,
      spoolId: identity.spoolId,
      clock,
      observer,
      freeSpace: () => diskSpace(spoolDir),
      disk: syncs ? systemDisk : { ...systemDisk, sync: (_, done) => done(null) },
      onFailure: (error) => fallWith(error, observer, clock),
    },
    { clock, observer },
  )
  observer.emit('spool.opened', { messages: queue.size, segments: spool.segmentCount })
  return {
    spool,
    queue,
    bodies,
    quarantine,
    trace,
    rows,
    changes,
    conflicts,
    lists,
    tokens,
    operators,
    close: async () => {
      await spool.close()
      quarantine.close()
      trace.close()
      state.close()
      history.close()
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
    'disk_free_bytes',
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

type Handle = (
  request: Request,
  client: { readonly ip: string; readonly trusted: boolean },
) => Promise<Response>

/** The web on its port, and the same on DIR/control.sock for whoever owns the directory. */
function openWeb(
  options: NodeOptions,
  certificate: Certificate,
  handle: Handle,
): { readonly url: string; readonly stop: () => Promise<void> } {
  const { host, port, tls } = options.web
  const socket = join(options.dataDir, 'control.sock')
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
