/** Rules: what each weighs, rules of the operator, maps and YARA sources. */
import { Elysia, t } from 'elysia'
import type { MapRow, RuleRow, RuleScore, YaraRow } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import { MAP_SUBJECTS } from '../../src/config/rules.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, seeOther } from '../html.ts'
import { act, csrf, MORPH, mayChange } from '../parts/forms.ts'
import { note } from '../parts/marks.ts'
import { ruleWords } from '../parts/rules.ts'
import { shell } from '../parts/shell.ts'
import { counted, longTime } from '../parts/words.ts'
import type { Site } from '../site.ts'

/** Rules that the table shows at once; the search finds the others. */
const SHOWN = 300

const SHORT = t.Optional(t.String({ maxLength: 200 }))
const LONG = t.Optional(t.String({ maxLength: 400_000 }))
const FORM = t.Object({
  name: SHORT,
  score: SHORT,
  on: SHORT,
  describe: t.Optional(t.String({ maxLength: 1_000 })),
  kind: SHORT,
  field: SHORT,
  pattern: t.Optional(t.String({ maxLength: 4_000 })),
  map: SHORT,
  of: SHORT,
  text: LONG,
  q: SHORT,
})
type Typed = Readonly<Record<string, string | undefined>>

export function rulePages(site: Site) {
  const { admin, guard, flashes } = site
  const change = async (
    request: Request,
    typed: Typed,
    run: () => Promise<string> | string,
    again: (refusal: RefusalError) => Response,
  ): Promise<Response> => {
    try {
      const words = await run()
      flashes.add(guard.visitOf(request).session, words)
      return seeOther(
        typed['q'] === undefined ? '/rules' : `/rules?q=${encodeURIComponent(typed['q'])}`,
      )
    } catch (error) {
      if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
      return again(error)
    }
  }
  const remove = (kind: string, words: string) => {
    return async ({ request, body }: { request: Request; body: Typed }) => {
      const name = body['name'] ?? ''
      return await change(
        request,
        body,
        () => {
          admin.removeDetection(guard.authorOf(request), kind, name)
          return `${name} ${words}`
        },
        (refusal) => rulesPage(site, request, body['q'] ?? '', refusal),
      )
    }
  }
  return new Elysia({ prefix: '/rules' })
    .get('/', ({ request, query }) => rulesPage(site, request, query.q ?? '', null), {
      query: t.Object({ q: SHORT }),
    })
    .post(
      '/score',
      ({ request, body }) =>
        change(
          request,
          body,
          async () => {
            const { name = '', score = '' } = body
            await admin.putDetection(guard.authorOf(request), 'score', name, { score })
            return `${name} weighs ${score}, on all nodes`
          },
          (refusal) => rulesPage(site, request, body.q ?? '', refusal),
        ),
      { body: FORM },
    )
    .post('/reset', remove('score', 'weighs what it does by itself'), { body: FORM })
    .get('/own', ({ request }) => rulePage(site, request, { on: 'on', kind: 'body' }, null))
    .get('/own/:name', ({ request, params }) => {
      const rule = admin.ownRules().find(({ name }) => name === params.name)
      if (rule === undefined) throw unknown('rule', params.name)
      return rulePage(site, request, typedOf(rule), null)
    })
    .post(
      '/own',
      ({ request, body }) =>
        change(
          request,
          {},
          async () => {
            const { name = '', score, describe = '', on } = body
            await admin.putDetection(guard.authorOf(request), 'rule', name, {
              score,
              on: on === 'on',
              describe,
              look: lookOf(body),
            })
            return `${name.toUpperCase()} is in force, on all nodes`
          },
          (refusal) => rulePage(site, request, body, refusal),
        ),
      { body: FORM },
    )
    .post('/own/remove', remove('rule', 'is removed'), { body: FORM })
    .get('/maps', ({ request }) => textPage(site, request, 'map', {}, null))
    .get('/maps/:name', ({ request, params }) => {
      const map = admin.maps().find(({ name }) => name === params.name)
      if (map === undefined) throw unknown('map', params.name)
      return textPage(site, request, 'map', { name: map.name, text: map.entries.join('\n') }, null)
    })
    .post('/maps', ({ request, body }) => putText(request, 'map', body), { body: FORM })
    .post('/maps/remove', remove('map', 'is removed'), { body: FORM })
    .get('/yara', ({ request }) => textPage(site, request, 'yara', {}, null))
    .get('/yara/:name', ({ request, params }) => {
      const found = admin.yara().find(({ name }) => name === params.name)
      if (found === undefined) throw unknown('YARA source', params.name)
      return textPage(site, request, 'yara', { name: found.name, text: found.source }, null)
    })
    .post('/yara', ({ request, body }) => putText(request, 'yara', body), { body: FORM })
    .post('/yara/remove', remove('yara', 'is removed'), { body: FORM })

  function putText(request: Request, kind: 'map' | 'yara', body: Typed): Promise<Response> {
    const { name = '', text = '' } = body
    const value = kind === 'map' ? { entries: text.split(/[\r\n]+/) } : { source: text }
    return change(
      request,
      {},
      async () => {
        await admin.putDetection(guard.authorOf(request), kind, name, value)
        return `${name.toLowerCase()} is in force, on all nodes`
      },
      (refusal) => textPage(site, request, kind, body, refusal),
    )
  }
}

function unknown(what: string, name: string): RefusalError {
  return new RefusalError(
    'notFound',
    'name',
    `There is no ${what} ${JSON.stringify(name.slice(0, 64))}.`,
    'See the page of rules for those that there are.',
  )
}

function lookOf({ kind, field, pattern, map, of }: Typed): object {
  if (kind === 'header') return { kind, field, pattern }
  if (kind === 'composite') return { kind, expression: pattern }
  if (kind === 'map') return { kind, map, of }
  return { kind, pattern }
}

function typedOf({ name, score, on, describe, look }: RuleRow): Typed {
  const common = {
    name,
    score: String(score),
    describe,
    kind: look.kind,
    ...(on ? { on: 'on' } : {}),
  }
  switch (look.kind) {
    case 'header':
      return { ...common, field: look.field, pattern: look.pattern }
    case 'composite':
      return { ...common, pattern: look.expression }
    case 'map':
      return { ...common, map: look.map, of: look.of }
    default:
      return { ...common, pattern: look.pattern }
  }
}

function rulesPage(
  site: Site,
  request: Request,
  query: string,
  refusal: RefusalError | null,
): Response {
  const visit = site.guard.visitOf(request)
  const acts = mayChange(site, visit)
  const main = html`<div class="head"><h1>Rules</h1><p>The same on all nodes; in force for the next mail</p></div>
${refusal === null ? '' : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)}
${thresholds(site)}
${tableCard(site, visit, query, acts)}
${ownCard(site, visit, acts)}
${textCard(visit, 'map', site.admin.maps(), acts, site.clock.wallMs())}
${textCard(visit, 'yara', site.admin.yara(), acts, site.clock.wallMs())}`
  return shell(site, visit, {
    title: 'Rules',
    at: 'rules',
    main,
    status: refusal === null ? 200 : 422,
  })
}

/** What a sum of scores leads to, in one place. */
function thresholds({ admin }: Site): Html {
  const at = (key: string): string => String(admin.setting(key).value)
  return html`<section class="card" aria-labelledby="at"><header><h2 id="at">What a score leads to</h2><a class="btn small" href="/settings">Change</a></header><div class="body"><dl class="facts"><dt>From ${at('policy.tag')}</dt><dd>delivered, and marked as spam in its header</dd><dt>From ${at('policy.hold')}</dt><dd>held in quarantine</dd><dt>From ${at('policy.reject')}</dt><dd>refused at the door</dd></dl><p><small>A domain may have thresholds of its own.</small></p></div></section>`
}

function tableCard({ admin }: Site, visit: Visit, query: string, acts: boolean): Html {
  const wanted = query.trim().toLowerCase()
  const found = admin
    .ruleScores()
    .filter(({ rule, says }) => `${rule} ${says}`.toLowerCase().includes(wanted))
  const shown = found.slice(0, SHOWN)
  const more = found.length - shown.length
  return html`<section class="card" aria-labelledby="table"><header><h2 id="table">What each rule weighs</h2><small>${counted(found.length, 'rule')}</small></header>
<form class="body" method="get" action="/rules" role="search"><div class="fields"><label>Find a rule<input class="wide" name="q" type="search" value="${query}" maxlength="200" autocomplete="off" spellcheck="false"></label><button class="btn">Find</button></div></form>
${shown.length === 0 ? html`<div class="body"><small>No rule has these words.</small></div>` : html`<div class="scroll"><table class="entries"><thead><tr><th scope="col">Rule</th><th scope="col" class="num">Usual</th><th scope="col">Weighs</th></tr></thead><tbody>${shown.map((row) => scoreRow(visit, row, query, acts))}</tbody></table></div>`}${more > 0 ? html`<div class="body"><small>And ${counted(more, 'rule')} more: search for one.</small></div>` : ''}</section>`
}

function scoreRow(visit: Visit, row: RuleScore, query: string, acts: boolean): Html {
  const { rule, initial, score, own } = row
  const usual = initial === null ? 'not known' : String(initial)
  const weighs = score ?? initial ?? 0
  const form = html`<div class="acts"><form class="acts" method="post" action="/rules/score" hx-post="/rules/score" ${MORPH}>${csrf(visit)}<input type="hidden" name="name" value="${rule}"><input type="hidden" name="q" value="${query}"><input class="short" name="score" value="${weighs}" inputmode="decimal" maxlength="8" aria-label="What ${rule} weighs" autocomplete="off"><button class="btn small">Set</button></form>${score === null ? '' : act(visit, '/rules/reset', { words: 'Reset', small: true, fields: { name: rule, q: query } })}</div>`
  const said = row.says === '' ? ruleWords(rule) : row.says
  return html`<tr><td><b>${said}</b><br><code>${rule}</code>${own ? html` <small>yours</small>` : ''}</td><td class="num">${usual}</td><td>${acts ? form : html`${weighs}`}${score === null ? '' : html`<small>changed</small>`}</td></tr>`
}

function ownCard({ admin, clock }: Site, visit: Visit, acts: boolean): Html {
  const rules = admin.ownRules()
  const nowMs = clock.wallMs()
  const add = acts ? html`<a class="btn small" href="/rules/own">Add a rule</a>` : ''
  const rows = rules.map(
    (rule) =>
      html`<tr><td><b>${rule.describe === '' ? ruleWords(rule.name) : rule.describe}</b><br><code>${rule.name}</code>${rule.on ? '' : html` <small>off</small>`}</td><td class="long mono" hx-ignore>${lookWords(rule)}</td><td class="num">${rule.score}</td><td>${longTime(rule.changedMs, nowMs)}<br><small>by ${rule.by}</small></td>${acts ? html`<td class="num"><div class="acts right"><a class="btn small" href="/rules/own/${rule.name}">Edit</a>${act(visit, '/rules/own/remove', { words: 'Remove', small: true, fields: { name: rule.name } })}</div></td>` : ''}</tr>`,
  )
  return html`<section class="card" aria-labelledby="own"><header><h2 id="own">Your rules</h2>${add}</header>${rules.length === 0 ? html`<div class="body"><small>None yet. A rule of yours looks at a header field, the text, links, or what other rules found.</small></div>` : html`<div class="scroll"><table class="entries"><thead><tr><th scope="col">Rule</th><th scope="col">Looks at</th><th scope="col" class="num">Score</th><th scope="col">Changed</th>${acts ? html`<th scope="col"><span class="sr">Actions</span></th>` : ''}</tr></thead><tbody>${rows}</tbody></table></div>`}</section>`
}

function lookWords({ look }: RuleRow): string {
  switch (look.kind) {
    case 'header':
      return `${look.field}: ${look.pattern}`
    case 'composite':
      return look.expression
    case 'map':
      return `${look.of} in ${look.map}`
    default:
      return `${look.kind}: ${look.pattern}`
  }
}

const TEXTS = {
  map: {
    path: '/rules/maps',
    title: 'Maps',
    add: 'Add a map',
    none: 'None yet. A map is a list of addresses, hosts or hashes that a rule looks things up in.',
    help: 'One entry a line: an address, a domain, a network, a host or a SHA-256. What stands behind # is a remark.',
  },
  yara: {
    path: '/rules/yara',
    title: 'YARA sources',
    add: 'Add a source',
    none: 'None yet. Files of a mail are matched with the rules in a YARA source.',
    help: 'Rules of YARA. A rule weighs 5, or what its meta field score says.',
  },
} as const

function textCard(
  visit: Visit,
  kind: 'map' | 'yara',
  rows: readonly (MapRow | YaraRow)[],
  acts: boolean,
  nowMs: number,
): Html {
  const { path, title, add, none } = TEXTS[kind]
  const sized = (row: MapRow | YaraRow): string =>
    'entries' in row
      ? counted(row.entries.length, 'entry', 'entries')
      : counted(row.source.split('\n').length, 'line')
  return html`<section class="card" aria-labelledby="${kind}"><header><h2 id="${kind}">${title}</h2>${acts ? html`<a class="btn small" href="${path}">${add}</a>` : ''}</header>${
    rows.length === 0
      ? html`<div class="body"><small>${none}</small></div>`
      : html`<div class="scroll"><table class="entries"><tbody>${rows.map(
          (row) =>
            html`<tr><td><a href="${path}/${row.name}"><b>${row.name}</b></a><br><small>${sized(row)}</small></td><td>${longTime(row.changedMs, nowMs)}<br><small>by ${row.by}</small></td>${acts ? html`<td class="num">${act(visit, `${path}/remove`, { words: 'Remove', small: true, fields: { name: row.name } })}</td>` : ''}</tr>`,
        )}</tbody></table></div>`
  }</section>`
}

const KINDS = [
  ['header', 'A header field'],
  ['body', 'The text, as a reader sees it'],
  ['link', 'A link'],
  ['raw', 'The mail as it came'],
  ['composite', 'What other rules found'],
  ['map', 'A map'],
] as const

/** A field with what is wrong about it. */
function inputs(refusal: RefusalError | null) {
  return (name: string, label: string, input: (wrong: Html | '') => Html, help = ''): Html => {
    const isWrong = refusal?.field === name
    const wrong = isWrong ? html` aria-invalid="true" aria-describedby="${name}-e"` : ''
    const error = isWrong
      ? html`<p class="err" id="${name}-e">${refusal.message} ${refusal.advice}</p>`
      : ''
    return html`<label>${label}<span class="in">${input(wrong)}${error}</span>${help === '' ? '' : html`<small>${help}</small>`}</label>`
  }
}

function rulePage(
  site: Site,
  request: Request,
  typed: Typed,
  refusal: RefusalError | null,
): Response {
  const visit = site.guard.visitOf(request)
  const { name = '', score = '', describe = '', field = '', pattern = '', map = '' } = typed
  const input = inputs(refusal)
  const plain = (key: string, value: string, max: number) => (wrong: Html | '') =>
    html`<input class="wide" name="${key}" value="${value}" maxlength="${max}" autocomplete="off" spellcheck="false"${wrong}>`
  const named = ['name', 'score', 'describe', 'kind', 'field', 'pattern', 'expression', 'map', 'of']
  const stray =
    refusal === null || named.includes(refusal.field ?? '')
      ? ''
      : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
  const asked = refusal?.field === 'expression' ? 'expression' : 'pattern'
  const main = html`<div class="head"><div class="title"><small><a href="/rules">Rules</a></small><h1>${name === '' ? 'Add a rule' : name}</h1></div></div>${stray}
<form class="card" method="post" action="/rules/own" hx-post="/rules/own" ${MORPH}>${csrf(visit)}<div class="body first stack form">
${input('name', 'Name', plain('name', name, 64), 'Letters, digits and _, like OUR_INVOICE.')}
${input('describe', 'What it says on the page of a mail', plain('describe', describe, 200))}
${input('score', 'Score', (wrong) => html`<input class="short" name="score" value="${score}" inputmode="decimal" maxlength="8" autocomplete="off"${wrong}>`, '-100 to 100; positive is worse.')}
${input('kind', 'Looks at', (wrong) => html`<select name="kind"${wrong}>${KINDS.map(([kind, words]) => html`<option value="${kind}"${kind === typed['kind'] ? html` selected` : ''}>${words}</option>`)}</select>`)}
${input('field', 'Header field', plain('field', field, 100), 'For a header field: its name, or * for all.')}
${input(asked, 'Pattern or expression', (wrong) => html`<input class="wide mono" name="pattern" value="${pattern}" maxlength="2000" autocomplete="off" spellcheck="false"${wrong}>`, 'A pattern in the syntax of RE2, without regard to case; of other rules: A & (B | !C).')}
${input('map', 'Map', plain('map', map, 40), 'For a map: its name.')}
${input('of', 'What is looked up', (wrong) => html`<select name="of"${wrong}>${MAP_SUBJECTS.map((of) => html`<option${of === typed['of'] ? html` selected` : ''}>${of}</option>`)}</select>`)}
<label class="pick"><input type="checkbox" name="on" value="on"${typed['on'] === 'on' ? html` checked` : ''}> In force</label>
<div class="acts"><button class="btn primary">Save</button><a class="btn quiet" href="/rules">Cancel</a></div></div></form>`
  return shell(site, visit, {
    title: name === '' ? 'Add a rule' : name,
    at: 'rules',
    main,
    status: refusal === null ? 200 : 422,
  })
}

function textPage(
  site: Site,
  request: Request,
  kind: 'map' | 'yara',
  typed: Typed,
  refusal: RefusalError | null,
): Response {
  const visit = site.guard.visitOf(request)
  const { path, add, help } = TEXTS[kind]
  const { name = '', text = '' } = typed
  const input = inputs(refusal)
  const field = kind === 'map' ? 'entries' : 'source'
  const stray =
    refusal === null || ['name', field].includes(refusal.field ?? '')
      ? ''
      : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
  const main = html`<div class="head"><div class="title"><small><a href="/rules">Rules</a></small><h1>${name === '' ? add : name}</h1></div></div>${stray}
<form class="card" method="post" action="${path}" hx-post="${path}" ${MORPH}>${csrf(visit)}<div class="body first stack form">
${input('name', 'Name', (wrong) => html`<input class="wide" name="name" value="${name}" maxlength="40" autocomplete="off" spellcheck="false"${wrong}>`, 'Lower case letters, digits and dashes.')}
${input(field, kind === 'map' ? 'Entries' : 'Source', (wrong) => html`<textarea class="wide mono" name="text" rows="20" maxlength="400000" spellcheck="false"${wrong}>${text}</textarea>`, help)}
<div class="acts"><button class="btn primary">Save</button><a class="btn quiet" href="/rules">Cancel</a></div></div></form>`
  return shell(site, visit, {
    title: name === '' ? add : name,
    at: 'rules',
    main,
    status: refusal === null ? 200 : 422,
  })
}
