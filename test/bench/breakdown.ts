/** What a mail costs part by part, and what lies between us and a receiver that does nothing else. */
import { flood } from './load.ts'
import { median, short, spread, table } from './numbers.ts'
import { startStage } from './peers.ts'
import { STAGES, type Stage } from './stages.ts'
import { type Cell, type Effort, measure, type Shape, shapeName } from './throughput.ts'

const RELAYING: readonly Stage[] = ['deliver', 'inspect', 'ceiling']

/** Every stage alone, in turn. */
async function measureStages(
  directory: string,
  stages: readonly Stage[],
  shapes: readonly Shape[],
  effort: Effort,
): Promise<Cell[]> {
  const cells: Cell[] = []
  for (let round = 1; round <= effort.rounds; round += 1) {
    for (const stage of stages) {
      const peer = await startStage(directory, stage, RELAYING.includes(stage))
      try {
        await flood(peer.port, 4, stage === 'smtp-server' ? 20 : 400, 4_096)
        for (const shape of shapes) {
          const cell = await measure(peer, shape, round, effort)
          if (cell.problem !== null) {
            process.stdout.write(`  ${stage} ${shapeName(shape)}: ${cell.problem}\n`)
          } else cells.push(cell)
        }
      } finally {
        await peer.stop()
      }
    }
  }
  return cells
}

function values(cells: readonly Cell[], stage: string, shape: Shape, key: 'cpuMs' | 'perS') {
  return cells
    .filter((cell) => cell.peer === stage && shapeName(cell.shape) === shapeName(shape))
    .map((cell) => cell[key])
}

/** Prints the tables. */
export async function breakdownRun(
  directory: string,
  shapes: readonly Shape[],
  effort: Effort,
): Promise<void> {
  const stages = STAGES.map(({ stage }) => stage)
  const cells = await measureStages(directory, [...stages, 'ceiling'], shapes, effort)
  const cpu = (stage: string, shape: Shape): number => median(values(cells, stage, shape, 'cpuMs'))
  const rows = STAGES.map(({ stage, adds }, index) => [
    adds,
    ...shapes.flatMap((shape) => {
      const before = STAGES[index - 1]
      const added = cpu(stage, shape) - (before === undefined ? 0 : cpu(before.stage, shape))
      return [short(added), spread(values(cells, stage, shape, 'cpuMs'))]
    }),
  ])
  process.stdout.write('\nCPU ms a mail: what each part adds, and the sum so far\n\n')
  process.stdout.write(
    table(
      ['part', ...shapes.flatMap((shape) => [`${shapeName(shape)}: adds`, 'sum'])],
      [
        ...rows,
        [
          'ceiling: bare receiver, spool, sync, bare relay',
          ...shapes.flatMap((shape) => ['', spread(values(cells, 'ceiling', shape, 'cpuMs'))]),
        ],
        [
          'we cost, without inspectors, times the ceiling',
          ...shapes.flatMap((shape) => ['', short(cpu('deliver', shape) / cpu('ceiling', shape))]),
        ],
      ],
    ),
  )
  process.stdout.write('\nMails a second of the same\n\n')
  process.stdout.write(
    table(
      ['stage', ...shapes.map(shapeName)],
      [...stages, 'ceiling'].map((stage) => [
        stage,
        ...shapes.map((shape) => spread(values(cells, stage, shape, 'perS'))),
      ]),
    ),
  )
}

/** Accepting only: the smtp-server of npm beside our own engine, which does no less. */
export async function engineRun(directory: string, effort: Effort): Promise<void> {
  const shape = { sizeBytes: 4_096, connections: 10 }
  const engines = ['bare', 'session', 'smtp-server'] as const
  const cells = await measureStages(directory, engines, [shape], effort)
  process.stdout.write(`\nAccept and discard, ${shapeName(shape)}\n\n`)
  process.stdout.write(
    table(
      ['engine', 'mails a second', 'CPU ms a mail'],
      engines.map((stage) => [
        stage === 'session' ? 'ours' : stage,
        spread(values(cells, stage, shape, 'perS')),
        spread(values(cells, stage, shape, 'cpuMs')),
      ]),
    ),
  )
}
