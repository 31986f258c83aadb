/** Routes of the API for what an operator adds to detection: rules, scores, maps, YARA sources. */
import { t } from 'elysia'
import { isoTime } from '../src/base/clock.ts'
import { type Call, param, type Route, TEXT } from './route.ts'
import * as shape from './shapes.ts'
import type { Site } from './site.ts'
import { listOf } from './wire.ts'

const NAMED = t.Object({ name: TEXT('Name', 64) })

type Kind = {
  readonly kind: 'rule' | 'score' | 'map' | 'yara'
  readonly path: string
  readonly what: string
  readonly body: ReturnType<typeof t.Object>
  readonly row: ReturnType<typeof t.Object>
  readonly rows: () => readonly ({ readonly changedMs: number } & object)[]
}

export function detectionRoutes({ admin }: Pick<Site, 'admin'>): readonly Route[] {
  const kinds: readonly Kind[] = [
    {
      kind: 'rule',
      path: '/rules',
      what: 'rule',
      body: t.Object({
        score: t.Number({ description: '-100 to 100' }),
        on: t.Optional(t.Boolean()),
        describe: t.Optional(TEXT('What it says on the message page', 200)),
        look: shape.RULE_LOOK,
      }),
      row: shape.RULE,
      rows: () => admin.ownRules(),
    },
    {
      kind: 'score',
      path: '/scores',
      what: 'score in place of a rule’s own',
      body: t.Object({ score: t.Number({ description: '-100 to 100' }) }),
      row: shape.SCORE,
      rows: () => admin.scores(),
    },
    {
      kind: 'map',
      path: '/maps',
      what: 'map',
      body: t.Object({ entries: t.Array(t.String()) }),
      row: shape.MAP,
      rows: () => admin.maps(),
    },
    {
      kind: 'yara',
      path: '/yara',
      what: 'YARA source',
      body: t.Object({ source: t.String() }),
      row: shape.YARA,
      rows: () => admin.yara(),
    },
  ]
  const tag = 'Detection'
  return [
    {
      method: 'GET',
      path: '/detection/table',
      summary: 'All rules with their scores',
      tag,
      answer: shape.list(shape.RULE_SCORE),
      run: () => listOf(admin.ruleScores()),
    },
    ...kinds.flatMap(({ kind, path, what, body, row, rows }): readonly Route[] => [
      {
        method: 'GET',
        path,
        summary: `Every ${what}`,
        tag,
        answer: shape.list(row),
        run: () =>
          listOf(
            rows().map(({ changedMs, ...rest }) => ({ ...rest, changedAt: isoTime(changedMs) })),
          ),
      },
      {
        method: 'PUT',
        path: `${path}/:name`,
        summary: `Add or replace a ${what}; in force for the next mail, on all nodes`,
        tag,
        params: NAMED,
        body,
        answer: shape.DONE,
        run: async (call: Call) => {
          await admin.putDetection(call.author(), kind, param(call, 'name'), call.body)
          return { done: true }
        },
      },
      {
        method: 'DELETE',
        path: `${path}/:name`,
        summary: `Remove a ${what}`,
        tag,
        params: NAMED,
        answer: shape.DONE,
        refuses: [404],
        run: (call: Call) => {
          admin.removeDetection(call.author(), kind, param(call, 'name'))
          return { done: true }
        },
      },
    ]),
  ]
}
