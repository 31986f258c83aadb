/**
 * `bun test/bench/detection/detection.ts [DIR]`: how well spam is told from ham. Half of the
 * labelled mail is learnt, the other half judged, by our local inspectors in confined children,
 * and by SpamAssassin and Rspamd with nothing that asks the network; each also untaught. Writes
 * detection.md, roc.svg and rules.md into DIR (results/ beside this file). Words `postern`,
 * `spamassassin` and `rspamd` choose judges.
 */
import { chmodSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ours } from './ours.ts'
import type { Peer } from './peers.ts'
import { curvesOf, numbersOf, type Run, rulesOf, tableOf } from './report.ts'
import { rspamd } from './rspamd.ts'
import { CLASSES, type Labelled, labelledMail } from './set.ts'
import { spamAssassin } from './spamassassin.ts'

type Judge = {
  readonly word: string
  readonly threshold: number
  readonly needs: readonly string[]
  readonly start: (directory: string, train: readonly Labelled[]) => Promise<Peer>
}

/** Thresholds at which each marks a mail as spam by default. */
const JUDGES: readonly Judge[] = [
  { word: 'postern', threshold: 6, needs: [], start: ours },
  {
    word: 'spamassassin',
    threshold: 5,
    needs: ['spamd', 'sa-learn'],
    start: spamAssassin,
  },
  { word: 'rspamd', threshold: 6, needs: ['rspamd', 'redis-server'], start: rspamd },
]

async function main(words: readonly string[]): Promise<number> {
  const chosen = JUDGES.filter(({ word }) => words.includes(word))
  const judges = chosen.length === 0 ? JUDGES : chosen
  const [to = join(import.meta.dir, 'results')] = words.filter((word) =>
    JUDGES.every((judge) => judge.word !== word),
  )
  const missing = judges.flatMap(({ needs }) => needs.filter((name) => Bun.which(name) === null))
  if (missing.length > 0) {
    print(`missing: ${missing.join(', ')}; apt-get install spamd spamassassin rspamd redis-server`)
    return 2
  }
  const all = labelledMail()
  const train = all.filter(({ half }) => half === 'train')
  const judged = all.filter(({ half }) => half === 'test')
  const runs: Run[] = []
  for (const lessons of [train, []]) {
    for (const judge of judges) {
      runs.push(await runOf(judge, lessons, judged))
      // Each judge takes minutes: what is known is kept.
      write(to, runs, [describe(train, judged), tableOf(runs), versionsOf(runs)].join('\n\n'))
    }
  }
  print(tableOf(runs))
  return barsOf(runs).every((isMet) => isMet) ? 0 : 1
}

function write(to: string, runs: readonly Run[], text: string): void {
  mkdirSync(to, { recursive: true })
  writeFileSync(join(to, 'detection.md'), `${text}\n`)
  writeFileSync(join(to, 'roc.svg'), curvesOf(runs))
  const own = runs.find(({ name, isTrained }) => name === 'Postern' && isTrained)
  if (own !== undefined) writeFileSync(join(to, 'rules.md'), `${rulesOf(own)}\n`)
}

async function runOf(
  { start, threshold }: Judge,
  train: readonly Labelled[],
  judged: readonly Labelled[],
): Promise<Run> {
  const directory = mkdtempSync(join(tmpdir(), 'postern-detection-'))
  // Both others run as users of their own.
  chmodSync(directory, 0o755)
  try {
    const peer = await start(directory, train)
    try {
      const from = performance.now()
      const said = await peer.judge(judged)
      const ms = (performance.now() - from) / judged.length
      const isTrained = train.length > 0
      print(`${peer.name}, ${isTrained ? 'trained' : 'untrained'}: ${ms.toFixed(1)} ms a mail`)
      const scored = judged.map((mail, index) => {
        const { score = 0, rules = [], weights = [] } = said[index] ?? {}
        return { path: mail.path, class: mail.class, isSpam: mail.isSpam, score, rules, weights }
      })
      const { name, version } = peer
      return { name, version, isTrained, threshold, scored }
    } finally {
      await peer.stop()
    }
  } finally {
    rmSync(directory, { recursive: true, force: true })
  }
}

function describe(train: readonly Labelled[], judged: readonly Labelled[]): string {
  const count = (mails: readonly Labelled[]): string =>
    CLASSES.map((kind) => `${mails.filter((mail) => mail.class === kind).length} ${kind}`).join(
      ', ',
    )
  return `Learnt: ${count(train)}. Judged: ${count(judged)}.`
}

function versionsOf(runs: readonly Run[]): string {
  const own = runs.filter(({ isTrained }) => isTrained)
  return own.map(({ name, version }) => `${name}: ${version}`).join('. ')
}

/** AUC of at least 0.99, and more recall at 0.1 % false positives than each of the others. */
function barsOf(runs: readonly Run[]): readonly boolean[] {
  const [own, ...others] = runs.filter(({ isTrained }) => isTrained).map(numbersOf)
  if (own === undefined) return []
  return [own.area >= 0.99, ...others.map(({ recall }) => own.recall > recall)]
}

function print(text: string): void {
  process.stdout.write(`${text}\n`)
}

if (import.meta.main) process.exitCode = await main(process.argv.slice(2))
