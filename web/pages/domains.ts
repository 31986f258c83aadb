/** One domain: add, edit, try its next hops, remove; with the keys that sign its mail. */
import { Elysia, t } from 'elysia'
import type { Author, NextHopProbe } from '../../src/admin/contract.ts'
import { RefusalError } from '../../src/base/errors.ts'
import { formatNextHop } from '../../src/message/nexthop.ts'
import { type Html, html, seeOther } from '../html.ts'
import { conflictsIn } from '../parts/conflicts.ts'
import { csrf, mayChange } from '../parts/forms.ts'
import { note } from '../parts/marks.ts'
import { shell } from '../parts/shell.ts'
import { NO_SIGNING, type SigningSheet, signingCard } from '../parts/signing.ts'
import type { Site } from '../site.ts'
import { probeNote } from './setup.ts'

const NAME = t.Object({ name: t.String({ maxLength: 300 }) })
const FORM = t.Object({
  name: t.Optional(t.String({ maxLength: 300 })),
  hops: t.String({ maxLength: 4_000 }),
  known: t.Optional(t.Union([t.Literal('any'), t.Literal('list')])),
  recipients: t.Optional(t.String()),
  hold: t.String({ maxLength: 30 }),
  reject: t.String({ maxLength: 30 }),
  enforce: t.Optional(t.Union([t.Literal(''), t.Literal('on'), t.Literal('off')])),
  seen: t.Optional(t.String({ maxLength: 20_000 })),
  act: t.Optional(t.String({ maxLength: 10 })),
})

type Typed = {
  readonly name: string
  readonly hops: string
  readonly known: 'any' | 'list'
  readonly recipients: string
  readonly hold: string
  readonly reject: string
  /** Empty: as the settings say. */
  readonly enforce: '' | 'on' | 'off'
  /** What the form showed; null for a new domain. */
  readonly seen: string | null
}

export function domainPages(site: Site) {
  const { admin, guard, flashes } = site
  /** Saves, or answers with the form again. */
  const save = async (request: Request, typed: Typed, what: { isNew: boolean; tryIt: boolean }) => {
    const sheet = { typed, isNew: what.isNew }
    try {
      if (what.tryIt) {
        const probes = await Promise.all(
          linesOf(typed.hops)
            .slice(0, 10)
            .map((hop) => admin.probeNextHop(hop)),
        )
        return domainPage(site, request, { ...sheet, probes })
      }
      if (what.isNew) mustBeNew(site, typed.name)
      const domain = putTyped(site, guard.authorOf(request), typed)
      const [last] = admin.changes(1)
      flashes.add(
        guard.visitOf(request).session,
        `${what.isNew ? 'Added' : 'Saved'} ${domain.name}, in force now`,
        {
          undo: last?.id ?? null,
        },
      )
      return seeOther('/settings')
    } catch (error) {
      if (!(error instanceof RefusalError) || error.code === 'forbidden') throw error
      return domainPage(site, request, { ...sheet, refusal: error })
    }
  }
  return new Elysia({ prefix: '/domains' })
    .get('/new', ({ request }) => domainPage(site, request, { typed: BLANK, isNew: true }))
    .post(
      '/new',
      ({ request, body }) => {
        const typed = typedOf((body.name ?? '').trim(), body)
        return save(request, typed, { isNew: true, tryIt: body.act === 'try' })
      },
      { body: FORM },
    )
    .get(
      '/:name',
      ({ request, params }) => storedDomainPage(site, request, params.name, NO_SIGNING),
      {
        params: NAME,
      },
    )
    .post(
      '/:name',
      ({ request, params, body }) => {
        stored(site, params.name)
        return save(request, typedOf(params.name, body), {
          isNew: false,
          tryIt: body.act === 'try',
        })
      },
      { params: NAME, body: FORM },
    )
    .get('/:name/remove', ({ request, params }) => removePage(site, request, params.name), {
      params: NAME,
    })
    .post(
      '/:name/remove',
      ({ request, params }) => {
        admin.removeDomain(guard.authorOf(request), params.name)
        const [last] = admin.changes(1)
        flashes.add(guard.visitOf(request).session, `Removed ${params.name}`, {
          undo: last?.id ?? null,
        })
        return seeOther('/settings')
      },
      { params: NAME },
    )
}

const BLANK: Typed = {
  name: '',
  hops: '',
  known: 'any',
  recipients: '',
  hold: '',
  reject: '',
  enforce: '',
  seen: null,
}

type Body = Partial<Omit<Typed, 'seen'>> & {
  readonly seen?: string
  readonly hops: string
  readonly hold: string
  readonly reject: string
}

function typedOf(name: string, body: Body): Typed {
  const { hops, known = 'any', recipients = '', hold, reject, enforce = '', seen = null } = body
  const scores = { hold: hold.trim(), reject: reject.trim() }
  return { name, hops, known, recipients, ...scores, enforce, seen }
}

/** @throws RefusalError notFound */
function stored(site: Site, name: string): Typed {
  const domain = site.admin.domains().find((one) => one.name === name)
  if (domain === undefined) {
    throw new RefusalError(
      'notFound',
      'name',
      `There is no domain ${name}.`,
      'See the list of domains.',
    )
  }
  return {
    name,
    hops: domain.nextHops.map(formatNextHop).join('\n'),
    known: domain.recipients === null ? 'any' : 'list',
    recipients: (domain.recipients ?? []).join('\n'),
    hold: domain.hold === null ? '' : String(domain.hold),
    reject: domain.reject === null ? '' : String(domain.reject),
    enforce: domain.enforce === null ? '' : domain.enforce ? 'on' : 'off',
    seen: null,
  }
}

function mustBeNew(site: Site, name: string): void {
  const wanted = name.toLowerCase().replace(/\.$/, '')
  if (!site.admin.domains().some((one) => one.name === wanted)) return
  throw new RefusalError(
    'invalid',
    'name',
    `${wanted} is there already.`,
    'Edit it in the list of domains.',
  )
}

function putTyped(site: Site, author: Author, typed: Typed) {
  return site.admin.putDomain(author, typed.name, {
    nextHops: linesOf(typed.hops),
    recipients: typed.known === 'any' ? null : linesOf(typed.recipients),
    hold: thresholdOf('hold', typed.hold),
    reject: thresholdOf('reject', typed.reject),
    enforce: typed.enforce === '' ? null : typed.enforce === 'on',
    ...(typed.seen === null ? {} : { seen: typed.seen }),
  })
}

function thresholdOf(field: string, text: string): number | null {
  if (text === '') return null
  const value = Number(text.replace(',', '.'))
  if (Number.isFinite(value)) return value
  throw new RefusalError(
    'invalid',
    field,
    `“${text}” is not a number.`,
    'Enter a score, or nothing for the one of all domains.',
  )
}

function linesOf(text: string): readonly string[] {
  return text.split(/[\s,]+/).filter((line) => line !== '')
}

type Sheet = {
  readonly typed: Typed
  readonly isNew: boolean
  readonly probes?: readonly NextHopProbe[]
  readonly refusal?: RefusalError
  readonly signing?: SigningSheet
}

/** A domain as it is stored. @throws RefusalError notFound */
export function storedDomainPage(
  site: Site,
  request: Request,
  name: string,
  signing: SigningSheet,
): Response {
  return domainPage(site, request, { typed: stored(site, name), isNew: false, signing })
}

function domainPage(
  site: Site,
  request: Request,
  { typed, isNew, probes = [], refusal, signing = NO_SIGNING }: Sheet,
): Response {
  const visit = site.guard.visitOf(request)
  const may = mayChange(site, visit)
  const hold = site.admin.setting('policy.hold').value
  const reject = site.admin.setting('policy.reject').value
  const wrong = (field: string): Html | '' =>
    refusal?.field === field ? html` aria-invalid="true" aria-describedby="${field}-e"` : ''
  const error = (field: string): Html | '' =>
    refusal?.field === field
      ? html`<p class="err" id="${field}-e">${refusal.message} ${refusal.advice}</p>`
      : ''
  const enforced = site.admin.setting('sender.enforce').value === 'on' ? 'done' : 'only scored'
  const pick = (value: Typed['enforce'], words: string): Html =>
    html`<option value="${value}"${typed.enforce === value ? html` selected` : ''}>${words}</option>`
  const named = ['name', 'nextHops', 'recipients', 'hold', 'reject']
  const other =
    refusal === undefined || named.includes(refusal.field ?? '')
      ? ''
      : note('fail', html`<b>${refusal.message}</b> ${refusal.advice}`)
  const name = isNew
    ? html`<input class="wide" id="name" name="name" value="${typed.name}" placeholder="example.com" required maxlength="300" autocapitalize="off" spellcheck="false" autofocus${wrong('name')}>${error('name')}`
    : html`<b>${typed.name}</b>${error('name')}`
  const main = html`<div class="head"><div><small><a href="/settings">Domains and limits</a></small><h1>${isNew ? 'Add a domain' : typed.name}</h1></div>${isNew || !may ? '' : html`<div class="acts"><a class="btn danger" href="/domains/${typed.name}/remove">Remove</a></div>`}</div>
${other}${probes.map(probeNote)}
${isNew ? '' : conflictsIn(site, visit, [`domain/${typed.name}`], `/domains/${typed.name}`)}
<form class="card" method="post" action="/domains/${isNew ? 'new' : typed.name}">${csrf(visit)}${isNew ? '' : html`<input type="hidden" name="seen" value="${site.admin.seenOf(`domain/${typed.name}`)}">`}
<div class="field"><div><label for="name">Domain</label><p>Mail for this name is taken. Subdomains are domains of their own.</p></div><div class="in">${name}</div></div>
<div class="field"><div><label for="hops">Next hops</label><p>Where good mail goes, the first one first. Leave it empty to deliver by the MX records of the domain.</p></div><div class="in"><textarea class="wide" id="hops" name="hops" rows="3" placeholder="smtp://mail.example.com:25" maxlength="4000" autocapitalize="off" spellcheck="false"${wrong('nextHops')}>${typed.hops}</textarea>${error('nextHops')}<span class="unit">one a line, smtp:// or lmtp://</span></div></div>
<div class="field"><div><span class="label">Recipients</span><p>Who exists. Mail for anybody else is refused at the door.</p></div><div class="in stack"><label class="pick"><input type="radio" name="known" value="any"${typed.known === 'any' ? html` checked` : ''}> Any; the next hop decides</label><label class="pick"><input type="radio" name="known" value="list"${typed.known === 'list' ? html` checked` : ''}> Only these, the part before the @, one a line</label><textarea class="wide" name="recipients" rows="4" aria-label="Known recipients" autocapitalize="off" spellcheck="false"${wrong('recipients')}>${typed.recipients}</textarea>${error('recipients')}</div></div>
<div class="field"><div><label for="hold">Hold from score</label><p>Empty: as for all domains.</p></div><div class="in"><input id="hold" name="hold" value="${typed.hold}" placeholder="${String(hold)}" inputmode="decimal" maxlength="30" autocomplete="off"${wrong('hold')}><span class="unit">score, ${String(hold)} for all domains</span>${error('hold')}</div></div>
<div class="field"><div><label for="reject">Reject from score</label><p>Empty: as for all domains.</p></div><div class="in"><input id="reject" name="reject" value="${typed.reject}" placeholder="${String(reject)}" inputmode="decimal" maxlength="30" autocomplete="off"${wrong('reject')}><span class="unit">score, ${String(reject)} for all domains</span>${error('reject')}</div></div>
<div class="field"><div><label for="enforce">Forged mail</label><p>Whether what a domain asks for in DMARC is done: forged mail refused, or held.</p></div><div class="in"><select id="enforce" name="enforce">${pick('', `As for all domains: ${enforced}`)}${pick('on', 'Done')}${pick('off', 'Only scored')}</select></div></div>
${may ? html`<div class="field"><span></span><div class="acts"><button class="btn primary" name="act" value="save">${isNew ? 'Add the domain' : 'Save'}</button><button class="btn" name="act" value="try">Try the next hops</button><a class="btn quiet" href="/settings">Cancel</a></div></div>` : ''}
</form>${isNew ? '' : signingCard(site, visit, typed.name, signing)}`
  return shell(site, visit, {
    title: isNew ? 'Add a domain' : typed.name,
    at: 'settings',
    main,
    status: refusal === undefined && signing.refusal === null ? 200 : 422,
  })
}

function removePage(site: Site, request: Request, name: string): Response {
  const visit = site.guard.visitOf(request)
  stored(site, name)
  const keys =
    site.admin.signingKeys(name).length === 0
      ? ''
      : ' Its keys go too: what its people send goes out unsigned, and an undo does not bring them back. Leave their records in the DNS for a week, for mail that is on its way.'
  const main = html`<div class="head"><h1>Remove ${name}?</h1></div>
<form class="card" method="post" action="/domains/${name}/remove">${csrf(visit)}<div class="body first stack"><p>Mail for ${name} is refused from then on. What waits in the queue or is held stays.${keys} You can undo it under Changes.</p>
<div class="acts"><button class="btn danger">Remove</button><a class="btn quiet" href="/domains/${name}">Keep it</a></div></div></form>`
  return shell(site, visit, { title: `Remove ${name}`, at: 'settings', main })
}
