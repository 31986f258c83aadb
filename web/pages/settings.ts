/** Domains and limits: the list of domains, and a form made of the schema, a group at a time. */
import { Elysia, t } from 'elysia'
import type { SettingRow } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import { LINE_WORDS } from '../../src/config/lines.ts'
import type { Setting, SettingValue } from '../../src/config/schema.ts'
import { formatNextHop } from '../../src/message/nexthop.ts'
import type { Visit } from '../guard.ts'
import { type Html, html, seeOther } from '../html.ts'
import { changeLine } from '../parts/changes.ts'
import { conflictsIn } from '../parts/conflicts.ts'
import { csrf, link, MORPH, mayChange } from '../parts/forms.ts'
import { choiceWords, groups, settingLabel, settingOf, valueWords } from '../parts/labels.ts'
import { empty } from '../parts/marks.ts'
import { shell } from '../parts/shell.ts'
import { counted, longTime } from '../parts/words.ts'
import type { Site } from '../site.ts'

/** A field of the form as the browser sends it. */
const FIELD = t.Union([t.String(), t.Array(t.String())])
type Field = string | readonly string[] | undefined

const DEFAULT_GROUP = 'Policy'

export function settingsPages(site: Site) {
  const { admin, guard, flashes } = site
  return new Elysia({ prefix: '/settings' })
    .get(
      '/',
      ({ request, query }) => settingsPage(site, request, { group: groupOf(query.group) }),
      { query: t.Object({ group: t.Optional(t.String({ maxLength: 50 })) }) },
    )
    .post(
      '/',
      ({ request, body }) => {
        const group = groupOf(typeof body['group'] === 'string' ? body['group'] : undefined)
        const visit = guard.visitOf(request)
        const typed = new Map<string, Field>(Object.entries(body))
        const wanted = changesIn(admin.settings(), group, typed)
        const { saved, refused } = saveAll(site, request, wanted, typed)
        if (saved.length > 0) {
          const words = saved.map(
            (key) => `${settingLabel(key)}: ${valueWords(key, admin.setting(key).value)}`,
          )
          const [last] = saved.length === 1 ? admin.changes(1) : []
          flashes.add(visit.session, `In force now. ${words.join('; ')}`, {
            undo: last?.id ?? null,
          })
        }
        if (refused.size > 0) return settingsPage(site, request, { group, typed, refused })
        if (saved.length === 0) flashes.add(visit.session, 'Nothing was changed')
        return seeOther(link('/settings', { group }))
      },
      { body: t.Record(t.String(), FIELD) },
    )
}

function groupOf(text: string | undefined): string {
  return groups().find((group) => group === text) ?? DEFAULT_GROUP
}

type Wanted = ReadonlyMap<string, unknown>

/** Settings of the group whose field says something else than their value. */
function changesIn(
  rows: readonly SettingRow[],
  group: string,
  typed: ReadonlyMap<string, Field>,
): Wanted {
  const wanted = new Map<string, unknown>()
  // A box without a mark is not sent; only a form that showed it means "none" by its absence.
  const marked = typed.get('shown') ?? []
  const shown = new Set(typeof marked === 'string' ? [marked] : marked)
  for (const { key, value } of rows) {
    const setting = settingOf(key)
    if (setting === null || setting.group !== group) continue
    const given = read(setting, typed.get(key), shown.has(key))
    if (given !== null && !same(setting, value, given)) wanted.set(key, given)
  }
  return wanted
}

/** The field as JSON of its kind; null when the form does not have it. */
function read(setting: Setting, field: Field, shown: boolean): SettingValue | null {
  const one = typeof field === 'string' ? field : field?.[0]
  switch (setting.kind) {
    case 'flag':
      return one === undefined && !shown ? null : one !== undefined
    case 'names':
      if (field === undefined) return shown ? [] : null
      return typeof field === 'string' ? [field] : field
    case 'networks':
      return one === undefined ? null : one.split(/[\s,]+/).filter((word) => word !== '')
    case 'lines': {
      const lines = one?.split(/[\r\n]+/).map((line) => line.trim())
      return lines?.filter((line) => line !== '') ?? null
    }
    default:
      return one === undefined ? null : one.trim()
  }
}

function same(setting: Setting, value: SettingValue, given: SettingValue): boolean {
  if (setting.kind === 'whole' || setting.kind === 'number') {
    return given !== '' && Number(given) === value
  }
  return JSON.stringify(value) === JSON.stringify(given)
}

type Saved = {
  readonly saved: readonly string[]
  readonly refused: ReadonlyMap<string, RefusalError>
}

/**
 * One after the other, again while some succeed: hold 20 and reject 30 together are fine,
 * though hold alone would be above reject. What somebody else set since the form was drawn is
 * refused at its field, and the form that is drawn then may save over it.
 */
function saveAll(
  site: Site,
  request: Request,
  wanted: Wanted,
  typed: ReadonlyMap<string, Field>,
): Saved {
  const author = site.guard.authorOf(request)
  const waiting = new Map(wanted)
  const saved: string[] = []
  const refused = new Map<string, RefusalError>()
  for (let moved = true; moved && waiting.size > 0; ) {
    moved = false
    refused.clear()
    for (const [key, value] of waiting) {
      try {
        const seen = typed.get(`seen:${key}`)
        site.admin.setSetting(author, key, value, typeof seen === 'string' ? seen : undefined)
        saved.push(key)
        waiting.delete(key)
        moved = true
      } catch (error) {
        if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
        refused.set(key, error)
      }
    }
  }
  return { saved, refused }
}

type Sheet = {
  readonly group: string
  readonly typed?: ReadonlyMap<string, Field>
  readonly refused?: ReadonlyMap<string, RefusalError>
}

function settingsPage(site: Site, request: Request, { group, typed, refused }: Sheet): Response {
  const { admin, clock } = site
  const visit = site.guard.visitOf(request)
  const nowMs = clock.wallMs()
  const may = mayChange(site, visit)
  const rows = admin.settings().filter(({ key }) => settingOf(key)?.group === group)
  const fields = rows.map((row) =>
    fieldOf(row, {
      nowMs,
      seen: admin.seenOf(`setting/${row.key}`),
      typed: typed?.get(row.key),
      refusal: refused?.get(row.key),
      acts: may,
    }),
  )
  const tabs = groups().map(
    (name) =>
      html`<a href="${link('/settings', { group: name })}#limits"${name === group ? html` aria-current="true"` : ''}>${name}</a>`,
  )
  const errors = refused?.size ?? 0
  const save = may
    ? html`<div class="field"><span class="muted">${errors === 0 ? '' : `${counted(errors, 'error')}, not saved`}</span><div class="acts"><button class="btn primary">Save</button><button class="btn quiet" type="reset">Reset</button></div></div>`
    : ''
  const changes = admin.changes(6)
  const main = html`<div class="head"><h1>Domains and limits</h1><p>A change on any node is a change on all, for the next mail</p></div>
${conflictsIn(site, visit, ['setting', 'domain'], '/settings')}
${domainsCard(site, visit)}
<div class="main-aside" id="limits"><div class="stack"><nav class="seg" aria-label="Group">${tabs}</nav>
<form class="card" aria-labelledby="lim" method="post" action="/settings" hx-post="/settings" ${MORPH}>${csrf(visit)}<input type="hidden" name="group" value="${group}"><header><h2 id="lim">${group}</h2></header>
${fields}
${save}
</form></div>
<section class="card" aria-labelledby="his"><header><h2 id="his">Changes</h2><a class="btn small" href="/changes">All changes</a></header>${
    changes.length === 0
      ? html`<div class="body"><small>Nothing was changed yet.</small></div>`
      : html`<ul class="todo log">${changes.map((change) => changeLine(site, visit, change, nowMs))}</ul>`
  }</section></div>`
  return shell(site, visit, {
    title: 'Domains and limits',
    at: 'settings',
    main,
    status: errors === 0 ? 200 : 422,
  })
}

type FieldFacts = {
  readonly nowMs: number
  /** Goes with the form: what it shows, so that nobody saves over what he did not see. */
  readonly seen: string
  readonly typed: Field
  readonly refusal: RefusalError | undefined
  readonly acts: boolean
}

function fieldOf(row: SettingRow, facts: FieldFacts): Html {
  const setting = settingOf(row.key)
  if (setting === null) return html``
  const { refusal, nowMs } = facts
  const id = row.key.replace('.', '-')
  const by =
    row.changedBy === null || row.changedMs === null
      ? ''
      : ` Set by ${row.changedBy}, ${longTime(row.changedMs, nowMs)}.`
  const label =
    setting.kind === 'names' ||
    (setting.kind === 'choice' && choiceWords(row.key, setting.initial) !== null)
      ? html`<span class="label" id="${id}-l">${settingLabel(row.key)}</span>`
      : html`<label for="${id}">${settingLabel(row.key)}</label>`
  const error =
    refusal === undefined
      ? ''
      : html`<p class="err" id="${id}-e">${refusal.message} ${refusal.advice}</p>`
  return html`<div class="field" id="f-${id}"><input type="hidden" name="seen:${row.key}" value="${facts.seen}"><div>${label}<p id="${id}-h">${setting.help}</p><small class="mono">${row.key}</small></div><div class="in">${inputOf(setting, row, id, facts)}${error}<span class="from">Default ${valueWords(row.key, row.initial)}.${by}</span></div></div>`
}

function inputOf(
  setting: Setting,
  { key, value }: SettingRow,
  id: string,
  facts: FieldFacts,
): Html {
  const { typed, refusal, acts } = facts
  const about = html` aria-describedby="${id}-h${refusal === undefined ? '' : ` ${id}-e`}"${refusal === undefined ? '' : html` aria-invalid="true"`}${acts ? '' : html` disabled`}`
  switch (setting.kind) {
    case 'whole':
    case 'number': {
      const unit = setting.unit === 'bytes' ? `bytes, ${valueWords(key, value)}` : setting.unit
      return html`<input id="${id}" name="${key}" value="${typeof typed === 'string' ? typed : String(value)}" inputmode="${setting.kind === 'whole' ? 'numeric' : 'decimal'}" maxlength="30" autocomplete="off"${about}><span class="unit">${unit}</span>`
    }
    case 'flag':
      return html`<input type="hidden" name="shown" value="${key}"><input id="${id}" name="${key}" type="checkbox" value="on"${value === true ? html` checked` : ''}${about}>`
    case 'choice': {
      const chosen = typeof typed === 'string' ? typed : value
      if (setting.choices.some((choice) => choiceWords(key, choice) !== null)) {
        return html`<span class="choices" role="radiogroup" aria-labelledby="${id}-l"${about}>${setting.choices.map((choice) => html`<label class="pick"><input type="radio" name="${key}" value="${choice}"${choice === chosen ? html` checked` : ''}${acts ? '' : html` disabled`}><span><b>${choice}</b><br><small>${choiceWords(key, choice)}</small></span></label>`)}</span>`
      }
      return html`<select id="${id}" name="${key}"${about}>${setting.choices.map((choice) => html`<option${choice === chosen ? html` selected` : ''}>${choice}</option>`)}</select>`
    }
    case 'networks': {
      const text = typeof typed === 'string' ? typed : listOf(value).join('\n')
      return html`<textarea id="${id}" name="${key}" class="wide" rows="3" placeholder="192.0.2.0/24" maxlength="20000" spellcheck="false"${about}>${text}</textarea><span class="unit">one a line</span>`
    }
    case 'lines': {
      const text = typeof typed === 'string' ? typed : listOf(value).join('\n')
      return html`<textarea id="${id}" name="${key}" class="wide" rows="3" maxlength="100000" spellcheck="false"${about}>${text}</textarea><span class="unit">${LINE_WORDS[setting.form]}</span>`
    }
    case 'names': {
      const chosen =
        typed === undefined ? listOf(value) : typeof typed === 'string' ? [typed] : typed
      return html`<input type="hidden" name="shown" value="${key}"><span class="acts" role="group" aria-label="${settingLabel(key)}">${setting.choices.map((choice) => html`<label class="pick"><input type="checkbox" name="${key}" value="${choice}"${chosen.includes(choice) ? html` checked` : ''}${acts ? '' : html` disabled`}> ${choice}</label>`)}</span>`
    }
  }
}

function listOf(value: SettingValue): readonly string[] {
  return typeof value === 'object' ? value : []
}

function domainsCard(site: Site, visit: Visit): Html {
  const domains = site.admin.domains()
  const may = mayChange(site, visit)
  const shown = domains.slice(0, 500)
  const add =
    may && domains.length > 0 ? html`<a class="btn small" href="/domains/new">Add a domain</a>` : ''
  const list =
    domains.length === 0
      ? empty(
          'No domain yet',
          html`Until the first one is added, every recipient is refused.`,
          may ? html`<a class="btn primary" href="/domains/new">Add a domain</a>` : null,
        )
      : html`<div class="scroll"><table><thead><tr><th scope="col">Domain</th><th scope="col">Next hop</th><th scope="col">Recipients</th><th scope="col">Thresholds</th><th scope="col"><span class="sr">Actions</span></th></tr></thead><tbody>${shown.map(
          (domain) => {
            const [hop, ...more] = domain.nextHops.map(formatNextHop)
            const known =
              domain.recipients === null
                ? 'any, the next hop decides'
                : counted(domain.recipients.length, 'listed recipient')
            const own = [
              domain.hold === null ? null : `hold ${domain.hold}`,
              domain.reject === null ? null : `reject ${domain.reject}`,
              domain.enforce === null ? null : `DMARC ${domain.enforce ? 'enforced' : 'scored'}`,
            ].filter((text) => text !== null)
            return html`<tr><td><b>${domain.name}</b></td><td>${hop ?? 'by MX records'}${more.length === 0 ? '' : html`<br><small>then ${more.join(', ')}</small>`}</td><td>${known}</td><td>${own.length === 0 ? 'as below' : own.join(', ')}</td><td class="num"><a class="btn small" href="/domains/${domain.name}">${may ? 'Edit' : 'Show'}</a></td></tr>`
          },
        )}</tbody></table></div>`
  const rest =
    domains.length > shown.length
      ? html`<div class="body"><small>And ${domains.length - shown.length} more; the API lists them all.</small></div>`
      : ''
  return html`<section class="card" aria-labelledby="dom"><header><h2 id="dom">Domains</h2>${add}</header>${list}${rest}</section>`
}
