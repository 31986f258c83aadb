/**
 * What a copy costs: the queue alone and with one mirror, in turn, two processes over a real link
 * and disk. `bun test/bench/copies.ts [rounds]`; without SMTP, so its share is larger than in a
 * relay: read the milliseconds.
 */
import { mkdirSync, mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { SystemClock } from '../../src/base/clock.ts'
import { systemDisk } from '../../src/base/files.ts'
import { MessageIds, type NodeId, type SpoolId } from '../../src/base/ids.ts'
import { PIECE_BYTES } from '../../src/base/limits.ts'
import { Observer } from '../../src/base/observe.ts'
import { SeededRandom, SystemRandom } from '../../src/base/random.ts'
import type { Member, Roster } from '../../src/cluster/contract.ts'
import { newKeys } from '../../src/cluster/keys.ts'
import { LinkTable } from '../../src/cluster/link.ts'
import { MailCopies } from '../../src/cluster/mail-copies.ts'
import { SystemNetwork } from '../../src/cluster/network.ts'
import { NO_FACTS } from '../../src/message/verdict.ts'
import { Queue } from '../../src/store/queue.ts'
import { freshRecipient, type NewCommit } from '../../src/store/queued.ts'
import { spread, table } from './numbers.ts'

const NODES = ['aa'.padEnd(16, '0'), 'bb'.padEnd(16, '0')] as unknown as readonly [NodeId, NodeId]
const SETTLE_MS = 400
const RUN_MS = 3_000

/** One end: a queue on a disk, a link to the other end. */
async function open(place: 0 | 1, dir: string, ports: readonly [number, number]) {
  const clock = new SystemClock()
  const observer = new Observer(clock, () => {}, 'error')
  const keys = NODES.map((_, index) => newKeys(new SeededRandom(index + 1)))
  const members = NODES.map((node, index): Member => {
    const { exchange, sign } = keys[index] as ReturnType<typeof newKeys>
    return {
      node,
      name: node,
      standing: 'member',
      exchange: exchange.public,
      sign: sign.public,
      peer: [{ host: '127.0.0.1', port: ports[index] ?? 0 }],
      smtp: '',
      web: '',
      version: '0',
      features: [],
      drain: 'accepting',
      admittedBy: null,
      admittedMs: 0,
    }
  })
  const node = NODES[place]
  const self = {
    node,
    keys: keys[place] as ReturnType<typeof newKeys>,
    instance: `00000000000${place}`,
    epoch: 1,
    version: '0',
  }
  const roster: Roster = {
    clusterId: '00112233aabbccdd',
    self,
    members: () => members,
    peers: () => members.filter((member) => member.node !== node),
    get: (one) => members.find((member) => member.node === one) ?? null,
    byExchange: (key) => members.find(({ exchange }) => exchange.toHex() === key.toHex()) ?? null,
    onChange: () => {},
  }
  mkdirSync(dir)
  const { queue, spool } = await Queue.open(
    {
      dir,
      spoolId: '0123456789abcdef' as SpoolId,
      clock,
      observer,
      disk: systemDisk,
      freeSpace: () => {
        const { bavail, blocks, bsize } = statfsSync(dir)
        return { freeBytes: bavail * bsize, totalBytes: blocks * bsize }
      },
      onFailure: (error) => {
        throw error
      },
    },
    { clock, observer, node, copies: () => 'prefer' },
  )
  const links = await LinkTable.open(
    {
      self,
      clusterId: roster.clusterId,
      roster,
      listen: { host: '127.0.0.1', port: ports[place] },
      version: '0',
      parallelCrypto: true,
      onJoin: null,
    },
    { clock, random: new SystemRandom(), network: new SystemNetwork(clock), observer },
  )
  const isUsable = (one: NodeId): boolean => links.get(one) !== null
  const copies = new MailCopies({
    clock,
    observer,
    patience: { healMs: 15_000 },
    store: queue,
    links,
    roster,
    members: {
      get: (one) => ({ node: one, life: isUsable(one) ? 'alive' : 'dead', ...NEVER }),
      all: () => [],
      isUsable,
      onChange: () => {},
    },
    sync: { peer: () => ({ report: { takesCopies: true } as never }), onChange: () => {} },
    mayTake: () => null,
    onStale: async () => {},
  })
  const close = async (): Promise<void> => {
    copies.close()
    links.close()
    await spool.close()
  }
  return { clock, observer, queue, spool, links, copies, close, node }
}

const NEVER = {
  sinceMono: 0,
  heardMono: 0,
  ackedBoot: 0,
  udp: true,
  tcp: true,
  udpRoundTripMs: null,
} as const

/** The mirror: says its CPU in µs on a line when it is asked to on stdin. */
async function mirror(dir: string, ports: readonly [number, number]): Promise<void> {
  const end = await open(1, dir, ports)
  console.log('ready')
  for await (const line of console) {
    if (line === 'stop') break
    const { user, system } = process.cpuUsage()
    console.log(`${user + system}`)
  }
  await end.close()
}

type Shape = { readonly sizeBytes: number; readonly workers: number }
type Cell = {
  readonly perS: number
  readonly ownMs: number
  readonly otherMs: number
  readonly p50: number
  readonly p99: number
}

function commitOf(
  id: NewCommit['envelope']['id'],
  sizeBytes: number,
  receivedMs: number,
): NewCommit {
  return {
    envelope: {
      id,
      receivedMs,
      clientIp: '192.0.2.7',
      greeting: 'client.example',
      protocol: 'ESMTP',
      tls: null,
      outbound: false,
      sender: 'load@sender.test',
      eightBit: false,
      smtpUtf8: false,
      ret: null,
      envid: null,
      recipients: [{ address: 'someone@destination.example', notify: null, orcpt: null }],
    },
    prepend: `Received: from client.example ([192.0.2.7]) by mx1.example.com with ESMTP id ${id}\r\n`,
    sizeBytes,
    sha256: 'ab'.repeat(32),
    expiresMs: receivedMs + 432_000_000,
    facts: { ...NO_FACTS, subject: 'A subject of the usual length', from: 'load@sender.test' },
    verdicts: [],
    judgement: null,
    dsn: false,
    heldMoved: false,
    recipients: [freshRecipient('queued')],
  }
}

/** Accepts, and marks what was accepted as delivered, as fast as it goes. */
async function run(
  end: Awaited<ReturnType<typeof open>>,
  ids: MessageIds,
  { sizeBytes, workers }: Shape,
  cpuOfOther: () => Promise<number>,
): Promise<Cell> {
  const { queue, clock } = end
  const body = new Uint8Array(Buffer.alloc(sizeBytes, 'abcdefghijklmnopqrstuvwxyz 0123456789\r\n'))
  const took: number[] = []
  const [startedMono, cpu, other] = [clock.monoMs(), process.cpuUsage(), await cpuOfOther()]
  const untilMono = startedMono + RUN_MS
  const work = async (): Promise<void> => {
    while (clock.monoMs() < untilMono) {
      const id = ids.next()
      const draft = queue.draft(id)
      for (let at = 0; at < sizeBytes; at += PIECE_BYTES) {
        draft.add(body.subarray(at, at + PIECE_BYTES))
        if (end.spool.isBehind) await new Promise<void>((resolve) => end.spool.onDrain(resolve))
      }
      const dotMono = clock.monoMs()
      const isWhole = sizeBytes <= PIECE_BYTES
      const message = await queue.commit(
        draft,
        commitOf(id, sizeBytes, clock.wallMs()),
        isWhole ? body : null,
      )
      took.push(clock.monoMs() - dotMono)
      const [recipient] = message.recipients
      if (recipient === undefined) continue
      recipient.state = 'trying'
      queue.mark('try', message, [0])
      void queue.synced().then(() => {
        queue.mark('done', message, [0], { reply: '250 2.0.0 Ok' })
        recipient.state = 'done'
        queue.settle(message)
      })
    }
  }
  await Promise.all(Array.from({ length: workers }, work))
  const tookMs = clock.monoMs() - startedMono
  await Bun.sleep(SETTLE_MS)
  const { user, system } = process.cpuUsage(cpu)
  const sorted = took.sort((a, b) => a - b)
  const at = (part: number): number => sorted[Math.floor(sorted.length * part)] ?? 0
  return {
    perS: (took.length * 1_000) / tookMs,
    ownMs: (user + system) / 1_000 / took.length,
    otherMs: ((await cpuOfOther()) - other) / 1_000 / took.length,
    p50: at(0.5),
    p99: at(0.99),
  }
}

async function main(rounds: number): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), 'postern-copies-'))
  const base = 20_000 + Math.floor(process.pid % 20_000)
  const ports: readonly [number, number] = [base, base + 1]
  const child = Bun.spawn(
    [process.execPath, import.meta.path, 'mirror', join(dir, 'b'), ...ports.map(String)],
    { stdin: 'pipe', stdout: 'pipe', stderr: 'inherit' },
  )
  const lines = child.stdout.getReader()
  const said = async (): Promise<string> => new TextDecoder().decode((await lines.read()).value)
  const cpuOfOther = async (): Promise<number> => {
    child.stdin.write('cpu\n')
    await child.stdin.flush()
    return Number(await said())
  }
  await said()
  const end = await open(0, join(dir, 'a'), ports)
  const ids = new MessageIds(end.node, 1, end.clock)
  while (end.links.all().length === 0) await Bun.sleep(50)
  const shapes: readonly Shape[] = [
    { sizeBytes: 4_096, workers: 1 },
    { sizeBytes: 4_096, workers: 10 },
    { sizeBytes: 4_096, workers: 100 },
    { sizeBytes: 51_200, workers: 10 },
    { sizeBytes: 1_048_576, workers: 10 },
  ]
  const rows: string[][] = []
  for (const shape of shapes) {
    const cells: { readonly alone: Cell; readonly copied: Cell }[] = []
    for (let round = 0; round < rounds; round += 1) {
      const measure = async (isCopied: boolean): Promise<Cell> => {
        end.queue.mirror = isCopied ? end.copies.mirror : null
        return run(end, ids, shape, cpuOfOther)
      }
      const isFirst = round % 2 === 0
      const first = await measure(!isFirst)
      const second = await measure(isFirst)
      cells.push(isFirst ? { alone: first, copied: second } : { alone: second, copied: first })
    }
    const of = (pick: (cell: (typeof cells)[number]) => number): string => spread(cells.map(pick))
    rows.push([
      `${shape.sizeBytes} c${shape.workers}`,
      of(({ alone }) => alone.perS),
      of(({ copied }) => copied.perS),
      of(({ alone, copied }) => copied.perS / alone.perS),
      of(({ alone }) => alone.ownMs),
      of(({ copied }) => copied.ownMs),
      of(({ copied }) => copied.otherMs),
      of(({ alone }) => alone.p50),
      of(({ copied }) => copied.p50),
      of(({ alone, copied }) => copied.p50 - alone.p50),
    ])
  }
  const missed = end.observer.count('unreplicated_accepts_total')
  console.log(
    table(
      [
        'shape',
        'alone/s',
        'copied/s',
        'ratio',
        'CPU alone',
        'CPU owner',
        'CPU mirror',
        'p50 alone',
        'p50 copied',
        'added',
      ],
      rows,
    ),
  )
  console.log(`without a copy: ${missed}`)
  child.stdin.write('stop\n')
  await child.stdin.flush()
  await child.exited
  await end.close()
  rmSync(dir, { recursive: true, force: true })
}

const [word, dir = '', own = '0', other = '0'] = process.argv.slice(2)
if (word === 'mirror') await mirror(dir, [Number(own), Number(other)])
else await main(Number(word ?? 2))
process.exit(0)
