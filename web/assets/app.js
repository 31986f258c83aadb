// Postern admin: what HTML cannot do alone. Everything works without it.
const one = (selector) => document.querySelector(selector)
const rows = () => [...document.querySelectorAll('.data tbody tr')]

function at(row) {
  for (const other of rows()) other.classList.toggle('at', other === row)
}

function move(step) {
  const all = rows()
  const from = all.findIndex((row) => row.classList.contains('at'))
  const to = all[Math.min(all.length - 1, Math.max(0, from + step))]
  if (!to) return
  at(to)
  to.querySelector('a')?.focus({ preventScroll: true })
  to.scrollIntoView({ block: 'nearest' })
}

const keys = {
  '/': () => one('#find')?.focus(),
  j: () => move(1),
  k: () => move(-1),
  x: () => one('.data tr.at [type=checkbox]')?.click(),
  '?': () => one('#keys')?.showModal(),
}

addEventListener('keydown', (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return
  if (event.target.matches('input:not([type=checkbox]), textarea, select')) return
  const act = keys[event.key]
  if (!act) return
  event.preventDefault()
  act()
})

function count() {
  const boxes = [...document.querySelectorAll('.data tbody [type=checkbox]')]
  const chosen = boxes.filter((box) => box.checked).length
  const label = one('[data-count]')
  const all = one('[data-all]')
  if (label) label.textContent = `${chosen} selected`
  if (all) {
    all.checked = chosen > 0 && chosen === boxes.length
    all.indeterminate = chosen > 0 && chosen < boxes.length
  }
}

addEventListener('change', (event) => {
  if (event.target.matches('[data-all]'))
    for (const box of document.querySelectorAll('.data tbody [type=checkbox]')) box.checked = event.target.checked
  if (event.target.matches('.data [type=checkbox]')) count()
})

addEventListener('reset', () => setTimeout(count))

addEventListener('click', (event) => {
  const row = event.target.closest('.data tbody tr')
  if (row && event.target.closest('a[hx-get]')) at(row)
  const button = event.target.closest('button[data-theme-toggle]')
  if (!button) return
  event.preventDefault()
  const root = document.documentElement
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches
  root.dataset.theme = dark ? 'light' : 'dark'
  const secure = location.protocol === 'https:' ? '; secure' : ''
  document.cookie = `theme=${root.dataset.theme}; path=/; max-age=31536000; samesite=lax${secure}`
})

addEventListener('htmx:before:request', (event) => {
  const { ctx } = event.detail
  const source = ctx.sourceElement
  // Nobody looks: nothing is asked.
  if (source?.matches('[data-poll]') && document.hidden) return event.preventDefault()
  // Too narrow for the card beside the list: the same link opens the page.
  const peek = one('#peek')
  if (ctx.target === peek && peek && peek.offsetParent === null) {
    event.preventDefault()
    location.assign(source.href)
  }
})

function settle() {
  count()
  for (const toast of document.querySelectorAll('.toast:not([data-seen])')) {
    toast.dataset.seen = ''
    setTimeout(() => toast.remove(), 8000)
  }
}

addEventListener('htmx:after:swap', (event) => {
  settle()
  const poll = event.detail.ctx?.sourceElement?.matches('[data-poll]')
  if (!poll && document.activeElement === document.body) one('#main')?.focus({ preventScroll: true })
})

function fail(text) {
  const toast = document.createElement('div')
  toast.className = 'toast'
  toast.setAttribute('role', 'alert')
  toast.textContent = text
  one('#toasts')?.replaceChildren(toast)
  settle()
}

addEventListener('htmx:response:error', (event) => {
  if (event.detail.ctx.response.status >= 500)
    fail('This node failed. Reload to see whether it was done, then try again.')
})

let silent = false
addEventListener('htmx:after:request', () => {
  silent = false
})
addEventListener('htmx:error', (event) => {
  // A poll fails every few seconds while the node is away; once is enough.
  if (event.detail.ctx?.sourceElement?.matches('[data-poll]') && silent) return
  silent = true
  fail('This node does not answer. Try again in a moment.')
})

settle()
