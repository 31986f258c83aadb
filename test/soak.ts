/**
 * `run soak`: the suites of test/smtp, test/mail, test/process, test/sim and test/hosts with the
 * full counts of the bars, one after another; simulations, which have a clock of their own, beside
 * them. Words on the command line choose suites by a part of their path.
 * With all of them its last line (date, commit, counts, seed, result) goes to test/soak.md.
 */
import {
  appendFileSync,
  existsSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { isoTime, SystemClock } from '../src/base/clock.ts'
import { countJunit, judge } from './run.ts'

const ROOT = dirname(import.meta.dir)
const NOTE = join(import.meta.dir, 'soak.md')
const HEAD = `# Soak

The last run of \`run soak\`: the bars that have a count are met with this line only. Newest last.

`
const SIMULATED = 'test/sim/'
const clock = new SystemClock()

async function main(words: readonly string[]): Promise<number> {
  process.env['POSTERN_SOAK'] = '1'
  const { COUNTS, SEED } = await import('./process/counts.ts')
  const suites = [
    ...new Bun.Glob('test/{smtp,mail,process,sim,hosts}/*.test.ts').scanSync({ cwd: ROOT }),
  ]
    .filter((file) => words.length === 0 || words.some((word) => file.includes(word)))
    .sort()
  const began = clock.monoMs()
  const work = mkdtempSync(join(tmpdir(), 'postern-soak-'))
  let passed = 0
  let failed = 0
  let skipped = 0
  const run = async (file: string): Promise<void> => {
    const report = join(work, `${file.replaceAll('/', '.')}.xml`)
    const child = Bun.spawn(
      [
        process.execPath,
        'test',
        '--timeout=20000',
        '--reporter=junit',
        `--reporter-outfile=${report}`,
        `./${file}`,
      ],
      {
        cwd: ROOT,
        env: { ...process.env, POSTERN_BIN: process.env['POSTERN_BIN'] ?? binary() },
        stdio: ['ignore', 'inherit', 'inherit'],
      },
    )
    const code = await child.exited
    const count = judge(countJunit(existsSync(report) ? readFileSync(report, 'utf8') : ''), code)
    passed += count.passed
    failed += count.failed
    skipped += count.skipped
  }
  const inOrder = async (files: readonly string[]): Promise<void> => {
    for (const file of files) await run(file)
  }
  const simulated = suites.filter((file) => file.startsWith(SIMULATED))
  await Promise.all([
    inOrder(simulated),
    inOrder(suites.filter((file) => !file.startsWith(SIMULATED))),
  ])
  rmSync(work, { recursive: true, force: true })
  const commit = (
    await Bun.$`git rev-parse --short=12 HEAD`.cwd(ROOT).quiet().nothrow().text()
  ).trim()
  const isClean =
    (await Bun.$`git status --porcelain -- src web`.cwd(ROOT).quiet().nothrow().text()) === ''
  const { small, middle, large } = COUNTS.relay
  const { changes, deletes, held } = COUNTS.hosts
  const line = [
    isoTime(clock.wallMs()),
    `commit ${commit === '' ? 'unknown' : commit}${isClean ? '' : ' with changes'}`,
    `seed ${SEED}`,
    `${COUNTS.kills} kills`,
    `${COUNTS.powerCuts} power cuts, ${COUNTS.clusterCuts} of three nodes`,
    `${COUNTS.randomClients} random clients`,
    `${COUNTS.simulations} simulations, ${COUNTS.mailSimulations} of mail`,
    `relay ${small}/${middle}/${large} a cell`,
    `hosts ${changes} changes/${deletes} deletes/${held} held/${COUNTS.chaos.ms / 1_000} s of chaos`,
    `${Math.round((clock.monoMs() - began) / 60_000)} min`,
    `${passed} passed, ${failed} failed, ${skipped} skipped`,
  ].join(' · ')
  process.stdout.write(`${line}\n`)
  if (words.length === 0) {
    if (!existsSync(NOTE)) writeFileSync(NOTE, HEAD)
    appendFileSync(NOTE, `- ${line}\n`)
  }
  return failed > 0 || passed === 0 ? 1 : 0
}

/** The built binary, or nothing: then the sources are what soaks. */
function binary(): string {
  const built = join(ROOT, 'dist/postern')
  return existsSync(built) ? built : ''
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2))
