#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct entry {
  char *key;
  int value;
  struct entry *next;
};

static struct entry *find(struct entry *head, const char *key) {
  for (; head != NULL; head = head->next)
    if (strcmp(head->key, key) == 0) return head;
  return NULL;
}

int main(int argc, char **argv) {
  struct entry one = {"one", 1, NULL};
  struct entry two = {"two", 2, &one};
  const struct entry *hit = find(&two, argc > 1 ? argv[1] : "one");
  printf("%d\n", hit ? hit->value : -1);
  return hit ? EXIT_SUCCESS : EXIT_FAILURE;
}
