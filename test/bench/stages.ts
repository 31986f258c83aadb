/**
 * One receiver of the breakdown, as a process: `stages.ts STAGE PORT SINK DIRECTORY`. The stages
 * compose the modules of the product, each with one part more than the one before; `ceiling` is a
 * state machine with nothing but a spool and a relay, which no product could undercut.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import type { Socket } from 'bun'
import { SystemClock } from '../../src/base/clock.ts'
import { SystemResolver } from '../../src/base/dns.ts'
import { diskSpace, systemDisk } from '../../src/base/files.ts'
import { MessageIds, newNodeId, newSpoolId } from '../../src/base/ids.ts'
import { PIECE_BYTES } from '../../src/base/limits.ts'
import { Observer } from '../../src/base/observe.ts'
import { SystemRandom } from '../../src/base/random.ts'
import { ALONE } from '../../src/base/tally.ts'
import { LiveConfig } from '../../src/config/live.ts'
import { SmtpListener } from '../../src/mail/accept/listener.ts'
import type { Receiver } from '../../src/mail/accept/receive.ts'
import { createDeliverer } from '../../src/mail/deliver/attempt.ts'
import type { Deliverer } from '../../src/mail/deliver/contract.ts'
import { inspectConfigs } from '../../src/mail/inspect/config.ts'
import { createInspectors } from '../../src/mail/inspect/pool.ts'
import { Pipeline } from '../../src/mail/pipeline.ts'
import { reply } from '../../src/message/reply.ts'
import { Bodies } from '../../src/store/bodies.ts'
import { openDatabases } from '../../src/store/open.ts'
import { Quarantine } from '../../src/store/quarantine.ts'
import { Queue } from '../../src/store/queue.ts'
import { RECORD } from '../../src/store/records.ts'
import { Replica } from '../../src/store/replica.ts'
import { Spool } from '../../src/store/spool.ts'
import { Trace } from '../../src/store/trace.ts'

/** In order: each is the one before and `adds`. */
export const STAGES = [
  { stage: 'bare', adds: 'bare receiver: sockets, fixed replies, the end of the data' },
  { stage: 'session', adds: 'SMTP as we speak it: commands, limits, framing, envelope' },
  { stage: 'keep', adds: 'hash, Received field, spool and queue, not synced' },
  { stage: 'sync', adds: 'fdatasync before the 250, shared' },
  { stage: 'trace', adds: 'history of the message in SQLite' },
  { stage: 'log', adds: 'two log lines' },
  { stage: 'deliver', adds: 'delivery over SMTP, with its marks' },
  { stage: 'inspect', adds: 'the first inspectors, in processes of their own' },
] as const

export type Stage = (typeof STAGES)[number]['stage'] | 'ceiling' | 'smtp-server'

const END = Buffer.from('\r\n.\r\n')
const MAIN = join(import.meta.dir, '../../src/main.ts')

async function main(stage: Stage, port: number, sinkPort: number, directory: string) {
  if (stage === 'bare') return listenBare(port, null)
  if (stage === 'ceiling') return listenBare(port, await bareStore(directory, sinkPort))
  if (stage === 'smtp-server') return await listenSmtpServer(port)
  await listenPostern(stage, port, sinkPort, directory)
}

function has(stage: Stage, part: Stage): boolean {
  const names: readonly Stage[] = STAGES.map((one) => one.stage)
  return names.indexOf(stage) >= names.indexOf(part)
}

/** The listener of the product, and as much of what stands behind it as `stage` says. */
async function listenPostern(stage: Stage, port: number, sinkPort: number, directory: string) {
  const clock = new SystemClock()
  const random = new SystemRandom()
  const observer = new Observer(
    clock,
    (lines) => process.stderr.write(lines),
    has(stage, 'log') ? 'info' : 'warn',
  )
  const live = new LiveConfig()
  const { settings } = live.current
  live.swap({
    ...live.current,
    settings: has(stage, 'inspect') ? settings : { ...settings, 'inspect.inspectors': [] },
    domains: new Map([
      [
        'bench.test',
        {
          name: 'bench.test',
          nextHops: [{ protocol: 'smtp', host: '127.0.0.1', port: sinkPort }],
          recipients: null,
          hold: null,
          reject: null,
          enforce: null,
        },
      ],
    ]),
  })
  const node = { id: newNodeId(random), name: 'bench.test' }
  let receiver: Receiver = discarding
  if (has(stage, 'keep')) {
    const spoolDir = join(directory, 'spool')
    mkdirSync(spoolDir)
    const { queue, spool } = await Queue.open(
      {
        dir: spoolDir,
        spoolId: newSpoolId(random),
        clock,
        observer,
        freeSpace: () => diskSpace(spoolDir),
        disk: has(stage, 'sync') ? systemDisk : { ...systemDisk, sync: (_, done) => done(null) },
        onFailure: (error) => {
          throw error
        },
      },
      { clock, observer, node: node.id },
    )
    const databases = openDatabases(directory, { clock, observer })
    const rows = new Replica(databases.state, { clock, random, node: node.id })
    const quarantine = new Quarantine(databases.state, rows, { clock, observer, node })
    rows.start()
    const pipeline = new Pipeline({
      nodeName: () => node,
      hostname: node.name,
      clock,
      random,
      observer,
      live,
      spool,
      queue,
      bodies: new Bodies(directory, { random }),
      quarantine,
      trace: has(stage, 'trace')
        ? new Trace(databases.trace, { clock, random, observer, node, keepMs: () => 86_400_000 })
        : forgetful(),
      inspectConfig: inspectConfigs(node.name, () => null),
      inspectors: createInspectors(
        {
          command: [process.execPath, MAIN, 'inspector'],
          processes: has(stage, 'inspect') ? Math.max(1, navigator.hardwareConcurrency) : 1,
          spoolDir,
        },
        { clock, observer },
      ),
      deliverer: has(stage, 'deliver')
        ? createDeliverer({ clock, random, resolver: new SystemResolver(clock), observer })
        : delivered,
    })
    receiver = pipeline.receiver
  }
  new SmtpListener(
    { host: '127.0.0.1', port, hostname: node.name, tls: null },
    {
      clock,
      observer,
      ids: new MessageIds(node.id, 1, clock),
      live,
      receiver,
      tally: ALONE,
      greylist: null,
    },
  ).start()
}

const OK = reply(250, '2.0.0', 'Ok')

const spare: Buffer[] = []

/** Takes every message and keeps none. */
const discarding: Receiver = {
  refusal: () => null,
  refused: () => {},
  begin: () => ({
    block: () => spare.pop() ?? Buffer.allocUnsafeSlow(PIECE_BYTES),
    piece: (block) => {
      spare.push(block as Buffer)
      return true
    },
    onDrained: () => {},
    end: async () => OK,
    abort: () => {},
  }),
}

/** Delivers to nowhere, at once, with the marks of a delivery. */
const delivered: Deliverer = {
  deliver: async ({ recipients, beforeDot }) => {
    await beforeDot()
    return recipients.map(() => ({ kind: 'delivered', host: 'nowhere', tls: null, reply: OK }))
  },
  close: async () => {},
}

/** A trace that remembers nothing: the pipeline calls no more of it than this. */
function forgetful(): Trace {
  return { record: () => {}, outcome: () => {} } as unknown as Trace
}

// The ceiling: what a receiver costs that does nothing but receive, keep and relay.

type Keep = (message: Buffer) => Promise<void>
type Bare = { pieces: Buffer[]; tail: Buffer; isData: boolean }

/** Answers any client that follows the rules; knows no other. */
function listenBare(port: number, keep: Keep | null): void {
  const heard = (socket: Socket<Bare>, bytes: Buffer): void => {
    const session = socket.data
    if (session.isData) return received(socket, bytes)
    const verb = bytes.toString('latin1', 0, 4).toUpperCase()
    if (verb === 'EHLO') socket.write('250-bench.test\r\n250 PIPELINING\r\n')
    else if (verb === 'DATA') {
      session.isData = true
      socket.write('354 Go on\r\n')
    } else if (verb === 'QUIT') socket.end('221 Bye\r\n')
    else socket.write('250 Ok\r\n')
  }
  const received = (socket: Socket<Bare>, bytes: Buffer): void => {
    const session = socket.data
    session.pieces.push(keep === null ? bytes : Buffer.from(bytes))
    const end = session.tail.length === 0 ? bytes : Buffer.concat([session.tail, bytes])
    session.tail = Buffer.from(end.subarray(-END.length))
    if (!session.tail.equals(END)) return
    const message = keep === null ? END : Buffer.concat(session.pieces)
    session.pieces = []
    session.tail = Buffer.alloc(0)
    session.isData = false
    if (keep === null) socket.write('250 Ok\r\n')
    else void keep(message).then(() => socket.write('250 Ok\r\n'))
  }
  Bun.listen<Bare>({
    hostname: '127.0.0.1',
    port,
    socket: {
      open: (socket) => {
        socket.data = { pieces: [], tail: Buffer.alloc(0), isData: false }
        socket.write('220 bench.test ESMTP\r\n')
      },
      data: heard,
    },
  })
}

/** A spool of its own with shared syncs, and a relay that keeps no record of what it did. */
async function bareStore(directory: string, sinkPort: number): Promise<Keep> {
  const clock = new SystemClock()
  const random = new SystemRandom()
  const spool = await Spool.open(
    {
      dir: directory,
      spoolId: newSpoolId(random),
      clock,
      observer: new Observer(clock, () => {}),
      freeSpace: () => diskSpace(directory),
      disk: systemDisk,
      onFailure: (error) => {
        throw error
      },
    },
    () => {},
  )
  await spool.start()
  const ids = new MessageIds(newNodeId(random), 1, clock)
  const relay = bareRelay(sinkPort)
  const pieceBytes = 8 * 1024 * 1024
  return async (message) => {
    const id = ids.next()
    for (let from = 0; from < message.length; from += pieceBytes) {
      spool.append(RECORD.accept, id, 0, message.subarray(from, from + pieceBytes))
    }
    await spool.synced()
    relay(message)
  }
}

type Hop = { replies: number; rest: Buffer | null; isOpen: boolean }

/** A few kept connections, each message with its commands in one write. */
function bareRelay(port: number): (message: Buffer) => void {
  const waiting: Buffer[] = []
  const idle: Socket<Hop>[] = []
  let open = 0
  const envelope = Buffer.from(
    'MAIL FROM:<load@sender.test>\r\nRCPT TO:<someone@bench.test>\r\nDATA\r\n',
  )
  const write = (socket: Socket<Hop>, bytes: Buffer): void => {
    const taken = Math.max(0, socket.write(bytes))
    socket.data.rest = taken < bytes.length ? bytes.subarray(taken) : null
  }
  const next = (socket: Socket<Hop>): void => {
    const message = waiting.shift()
    if (message === undefined) {
      idle.push(socket)
      return
    }
    // Replies to MAIL, RCPT, DATA and the dot.
    socket.data.replies = 4
    write(socket, Buffer.concat([envelope, message]))
  }
  const dial = (): void => {
    open += 1
    void Bun.connect<Hop>({
      hostname: '127.0.0.1',
      port,
      data: { replies: 0, rest: null, isOpen: false },
      socket: {
        data: (socket, bytes) => {
          const hop = socket.data
          if (!hop.isOpen) {
            hop.isOpen = true
            hop.replies = 1
            socket.write('HELO bench.test\r\n')
            return
          }
          for (const octet of bytes) if (octet === 10) hop.replies -= 1
          if (hop.replies === 0) next(socket)
        },
        drain: (socket) => {
          if (socket.data.rest !== null) write(socket, socket.data.rest)
        },
      },
    })
  }
  return (message) => {
    waiting.push(message)
    const socket = idle.pop()
    if (socket !== undefined) next(socket)
    else if (open < 20) dial()
  }
}

/** The smtp-server of npm, which accepts and discards: for the note why port 25 is our own. */
async function listenSmtpServer(port: number): Promise<void> {
  const { SMTPServer } = await import('smtp-server')
  new SMTPServer({
    authOptional: true,
    disableReverseLookup: true,
    disabledCommands: ['STARTTLS'],
    onData: (stream, _session, done) => {
      stream.on('end', () => done())
      stream.resume()
    },
  }).listen(port, '127.0.0.1')
}

if (import.meta.main) {
  const [stage = '', port = '', sinkPort = '', directory = ''] = process.argv.slice(2)
  process.on('SIGTERM', () => process.exit(0))
  await main(stage as Stage, Number(port), Number(sinkPort), directory)
}
