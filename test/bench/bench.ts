/**
 * `run bench`: Postern beside stock Postfix on this machine, in turn; every bar as met or not met.
 * Words choose parts (throughput, latency, footprint, breakdown, engine, quiet, scan, inspect), `--quick` makes
 * it short. It runs what POSTERN_BIN names, else builds dist/postern.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { cpus, release, tmpdir, totalmem } from 'node:os'
import { join } from 'node:path'
import { BINARY, build } from '../../appliance/build.ts'
import { bars, printBars } from './bars.ts'
import { breakdownRun, engineRun } from './breakdown.ts'
import { footprintRun } from './footprint.ts'
import { Group } from './group.ts'
import { inspectRun } from './inspect.ts'
import { latencyRun } from './latency.ts'
import { noPostfix } from './peers.ts'
import { quietRun } from './quiet.ts'
import { scanRun } from './scan.ts'
import {
  FULL,
  judgeThroughput,
  PARTS_FULL,
  QUICK,
  type Shape,
  tablesOf,
  throughput,
} from './throughput.ts'

const PARTS = [
  'throughput',
  'latency',
  'footprint',
  'breakdown',
  'engine',
  'quiet',
  'scan',
  'inspect',
] as const
type Part = (typeof PARTS)[number]
/** These compare with Postfix. */
const BESIDE_POSTFIX: readonly Part[] = ['throughput', 'latency', 'scan']

const SIZES = [4_096, 51_200, 1_048_576]
const CONNECTIONS = [1, 10, 100]

async function main(words: readonly string[]): Promise<number> {
  const isQuick = words.includes('--quick')
  const chosen = words.filter((word) => word !== '--quick')
  const unknown = chosen.find((word) => !PARTS.some((part) => part === word))
  if (unknown !== undefined) {
    print(`there is no part "${unknown}"; there are ${PARTS.join(', ')} and --quick`)
    return 2
  }
  if (Bun.which('smtp-source') === null) {
    print('smtp-source and smtp-sink are missing: apt-get install postfix')
    return 2
  }
  if ((process.env['POSTERN_BIN'] ?? '') === '') {
    const { ok, output } = build()
    if (!ok) {
      print(output)
      return 1
    }
    process.env['POSTERN_BIN'] = BINARY
  }
  print(await machine())
  const effort = isQuick ? QUICK : FULL
  const directory = mkdtempSync(join(tmpdir(), 'postern-bench-'))
  try {
    for (const part of PARTS.filter((one) => chosen.length === 0 || chosen.includes(one))) {
      const reason = BESIDE_POSTFIX.includes(part) ? noPostfix() : null
      print(`\n## ${part}\n`)
      if (reason !== null) print(`left out: ${reason}`)
      else await run(part, directory, isQuick, effort)
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
  if (bars.length === 0) return 0
  print('\n## bars\n')
  printBars()
  return bars.every(({ isMet }) => isMet) ? 0 : 1
}

async function run(part: Part, directory: string, isQuick: boolean, effort: typeof FULL) {
  switch (part) {
    case 'throughput': {
      const shapes = SIZES.flatMap((sizeBytes) =>
        CONNECTIONS.map((connections): Shape => ({ sizeBytes, connections })),
      )
      const cells = await throughput(directory, shapes, effort)
      print(`\n${tablesOf(cells)}`)
      return judgeThroughput(cells)
    }
    case 'latency':
      return await latencyRun(directory, isQuick)
    case 'footprint':
      return await footprintRun(directory, isQuick)
    case 'breakdown': {
      const shapes = SIZES.flatMap((sizeBytes): Shape[] =>
        sizeBytes === SIZES[0]
          ? [10, 100].map((connections) => ({ sizeBytes, connections }))
          : [{ sizeBytes, connections: 10 }],
      )
      return await breakdownRun(directory, shapes, isQuick ? effort : PARTS_FULL)
    }
    case 'engine':
      return await engineRun(directory, isQuick ? effort : PARTS_FULL)
    case 'quiet':
      return await quietRun(isQuick)
    case 'scan':
      return await scanRun(directory, effort)
    case 'inspect':
      return await inspectRun(directory, isQuick)
  }
}

/** What was measured on, without a date: processors, memory, kernel, versions. */
async function machine(): Promise<string> {
  const [cpu] = cpus()
  const group = new Group('probe')
  const way = group.isControlGroup ? 'a control group a peer' : '/proc, in steps of 10 ms'
  await group.end()
  const node = await Bun.$`${process.env['POSTERN_BIN']} --version`.quiet().nothrow().text()
  const postfix = await Bun.$`postconf -d -h mail_version`.quiet().nothrow().text()
  const system = /^PRETTY_NAME="?([^"\n]*)/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1]
  return [
    `${cpus().length} processors (${cpu?.model.trim() ?? 'unknown'}), ${Math.round(totalmem() / 1e9)} GB, Linux ${release()}, ${system ?? ''}`,
    `${node.trim()}, Bun ${Bun.version}, Postfix ${postfix.trim() || 'missing'}; CPU by ${way}`,
  ].join('\n')
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2))
